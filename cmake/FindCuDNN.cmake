# CuDNN::cudnn, from the CUDA toolkit's folder, Debian's or NVIDIA's packages, or Python wheels (site-packages/nvidia/cudnn
# and nvidia/cu13). Hints: CuDNN_ROOT (or the environment's CUDNN_ROOT), and KILN_WHEELS, a list of site-packages folders.
#
# Wheels have no unversioned libcudnn.so, so both names are asked for; NAMES_PER_DIR, so that a header is never paired with
# another folder's library.
set(_cudnn_hints ${CuDNN_ROOT} $ENV{CUDNN_ROOT} ${CUDAToolkit_TARGET_DIR} ${CUDAToolkit_LIBRARY_ROOT} ${CUDAToolkit_BIN_DIR}/..)
foreach(_cudnn_folder ${KILN_WHEELS})
  list(APPEND _cudnn_hints ${_cudnn_folder}/nvidia/cudnn ${_cudnn_folder}/nvidia/cu13)
endforeach()
find_path(CuDNN_INCLUDE_DIR cudnn_version.h HINTS ${_cudnn_hints} PATH_SUFFIXES include include/x86_64-linux-gnu include/aarch64-linux-gnu)
find_library(CuDNN_LIBRARY NAMES cudnn libcudnn.so.9 NAMES_PER_DIR HINTS ${_cudnn_hints}
             PATH_SUFFIXES lib lib64 lib/x86_64-linux-gnu lib/aarch64-linux-gnu)
unset(CuDNN_VERSION)
if(CuDNN_INCLUDE_DIR)
  file(READ ${CuDNN_INCLUDE_DIR}/cudnn_version.h _cudnn_text)
  set(_cudnn_numbers "")
  foreach(_cudnn_key MAJOR MINOR PATCHLEVEL)
    string(REGEX MATCH "define CUDNN_${_cudnn_key} +([0-9]+)" _cudnn_match "${_cudnn_text}")
    list(APPEND _cudnn_numbers ${CMAKE_MATCH_1})
  endforeach()
  list(JOIN _cudnn_numbers "." CuDNN_VERSION)
endif()
foreach(_cudnn_scratch hints folder text numbers key match)
  unset(_cudnn_${_cudnn_scratch})
endforeach()
unset(_cudnn_scratch)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CuDNN REQUIRED_VARS CuDNN_LIBRARY CuDNN_INCLUDE_DIR VERSION_VAR CuDNN_VERSION)
if(CuDNN_FOUND AND NOT TARGET CuDNN::cudnn)
  add_library(CuDNN::cudnn UNKNOWN IMPORTED)
  set_target_properties(CuDNN::cudnn PROPERTIES IMPORTED_LOCATION ${CuDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${CuDNN_INCLUDE_DIR})
endif()
mark_as_advanced(CuDNN_INCLUDE_DIR CuDNN_LIBRARY)
