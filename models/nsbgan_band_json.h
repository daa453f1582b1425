// A band as it stands in a checkpoint's configuration. Not installed: kiln's headers bring no other library's with them.
#pragma once
#include <nlohmann/json.hpp>

#include "models/nsbgan_band.h"

namespace kiln::nsbgan {

void to_json(nlohmann::json& j, const Band& b);
/// Throws nlohmann's exceptions where a key is missing, kiln::Error for a value that is not known.
void from_json(const nlohmann::json& j, Band& b);

}  // namespace kiln::nsbgan
