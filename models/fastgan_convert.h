// FastGAN checkpoints between kiln and the public PyTorch code: its names, its layouts, its optimisers' states.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "engine/pth.h"
#include "models/fastgan.h"

namespace kiln::fastgan {

/// The public code's name of a parameter or buffer of G or D: "feat_8.conv2.weight" -> "feat_8.5.weight_orig". `name` as in
/// ParameterSet's entries. Defined at 256, 512 and 1024 px; at smaller sizes by the same rule.
std::string public_generator_name(const std::string& name);
std::string public_discriminator_name(const std::string& name);

struct ConvertResult {
  Config network;
  int64_t step = 0;
  bool optimisers = false;  ///< Adam's moments were there
  std::string note;         ///< what a user should know about what was not in the file; may be empty
};

/// From `all_*.pth` (g, d, g_ema, opt_g, opt_d) or a plain {g, d} into a kiln checkpoint from which training goes on. The
/// network's options are read off the tensors. step < 0: from the optimiser, else from the last number in the file's name, else
/// 0. Throws kiln::Error naming the file and what is missing, of another shape, or left over.
ConvertResult convert_from_pth(const std::filesystem::path& pth, const std::filesystem::path& checkpoint, int64_t step = -1);

/// The reverse: g, d, g_ema, opt_g, opt_d; with `plain` only g (the averaged weights) and d, as the public code samples from.
ConvertResult convert_to_pth(const std::filesystem::path& checkpoint, const std::filesystem::path& pth, bool plain);

}  // namespace kiln::fastgan
