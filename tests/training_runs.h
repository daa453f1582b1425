// What the tests of ./fastgan_train share: small runs, refusals, logs.
#pragma once
#include "tests/program.h"

namespace kiln::test {

/// These arguments, and the device that the tests run on; on a GPU with f32 and the same bits each time, as on a CPU.
std::vector<std::string> with_device(std::vector<std::string> arguments);

/// Arguments of a run small enough to take a second.
std::vector<std::string> tiny(const std::string& data, const std::string& out, std::vector<std::string> more = {});

/// fastgan_train must end with code 2 and one line on standard error that holds all the words.
void refuses(const std::vector<std::string>& arguments, const std::vector<std::string>& words);

/// The lines of a run's log without what depends on the clock and on where the pictures lie.
std::vector<std::string> timeless_log(const std::string& run);

/// The memory of the whole process that a finished run reports ("... N MB in all").
int megabytes_in_all(const Finished& f);
/// The number before such words in what a finished run reports.
double reported_megabytes(const Finished& f, const std::string& before);
/// A size after a word of the plan that --dry-run prints, in MB of 2^20: "tensors   420 MiB  (399 MiB live)".
double planned_megabytes(const std::string& text, const std::string& after);

}  // namespace kiln::test
