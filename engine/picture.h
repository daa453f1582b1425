// Pictures: read any common file, fit it to a square, put many on one sheet, write PNG.
//
// A picture is 8-bit sRGB as the file has it: colour profiles are ignored, alpha is laid over a background, CMYK is
// converted without a profile. What a file is, its first bytes decide, never its name.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln {

struct Rgb {
  uint8_t r = 255, g = 255, b = 255;
};

/// width x height pixels; rgb holds height * width * 3 bytes, row by row from the top, red first.
struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

struct PictureSize {
  int width = 0, height = 0;
  uint64_t pixels() const { return static_cast<uint64_t>(width) * static_cast<uint64_t>(height); }
};

/// More is taken for a broken header, and so is a claim out of proportion to the file (4096 pixels a byte, beyond 4
/// MP).
constexpr uint64_t kMaxPicturePixels = 400'000'000;

/// Reads JPEG (baseline, progressive; grey, YCbCr, CMYK, YCCK), PNG (all; 16 bits rounded to 8), WebP (lossy, lossless,
/// alpha; of an animation the first frame), BMP and TGA, with the EXIF orientation applied. Alpha goes over
/// `background`. Throws Error "PATH: reason; remedy" for what cannot be opened, is none of these, is damaged or cut
/// short anywhere.
Picture read_picture(const std::filesystem::path& path, Rgb background = {});

/// The same from memory; `name` stands for the path in errors.
Picture decode_picture(std::span<const uint8_t> file, std::string_view name, Rgb background = {});

/// What the header says, as stored (before EXIF orientation), checked as decode_picture checks it. Cheap. Throws Error.
PictureSize picture_size(std::span<const uint8_t> file, std::string_view name);

enum class Fit {
  crop,    ///< the largest centred square, scaled: fills the square, loses the ends of the longer side
  squash,  ///< the whole picture, its proportions changed
  pad,     ///< the whole picture, its proportions kept, on the background
};

/// "crop", "squash", "pad"; throws Error for any other word.
Fit fit_from_name(std::string_view name);
const char* fit_name(Fit fit);

/// Fits to size x size pixels with a Catmull-Rom filter (Pillow's BICUBIC), widened when it shrinks, so that nothing
/// aliases. It works on the sRGB values as they are, like Pillow and torchvision, in float until the end; Pillow rounds
/// and clips between its two passes, which makes a mean difference of 0.15 of 255. Takes about 12 * width + 48 * height
/// bytes beside the result. size >= 1.
Picture fit_picture(const Picture& picture, int size, Fit fit, Rgb background = {});

/// A sheet of `columns` pictures a row on `background`, `gap` pixels between and around them. All of one size; a last
/// row that is not full is filled with background. pictures not empty, columns >= 1, gap >= 0.
Picture make_grid(const std::vector<Picture>& pictures, int columns, int gap, Rgb background = {});

/// Scaled down, its proportions kept, until neither side is longer than `longest` pixels (>= 1); a smaller one stays.
Picture shrink_picture(const Picture& picture, int longest);

using PngText = std::vector<std::pair<std::string, std::string>>;

/// The bytes of an 8-bit RGB PNG. Text: keys of 1 to 79 ASCII characters, values UTF-8. Holds no time: equal in, equal
/// out.
std::vector<uint8_t> encode_png(const Picture& picture, const PngText& text = {});

/// encode_png to a file that is whole or not there. Throws Error naming the path (full disk, no such folder, ...).
void write_png(const std::filesystem::path& path, const Picture& picture, const PngText& text = {});

/// The text that a PNG carries, in order of the file. Throws Error if it is not a sound PNG.
PngText read_png_text(const std::filesystem::path& path);

/// The bytes of a JPEG file (4:4:4 from quality 90 on, else 4:2:0), quality 1 to 100. Sides up to 65500 pixels.
std::vector<uint8_t> encode_jpeg(const Picture& picture, int quality);
/// The bytes of a lossy WebP file, quality 0 to 100. Sides up to 16383 pixels. Holds no time: equal in, equal out.
/// Throws Error (no memory, a side that is too long).
std::vector<uint8_t> encode_webp(const Picture& picture, float quality);

enum class PictureFormat { png, jpeg, webp };
/// What a file's name says: .png, .jpg, .jpeg, .webp in any case. Throws Error for any other.
PictureFormat picture_format(const std::filesystem::path& path);
/// Writes a file of the kind that its name says, whole or not at all. Only PNG carries the text. Throws Error naming the
/// path.
void write_picture(const std::filesystem::path& path, const Picture& picture, const PngText& text = {}, int quality = 92);

}  // namespace kiln
