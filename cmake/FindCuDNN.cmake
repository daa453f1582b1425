# CuDNN::cudnn. Hints: CuDNN_ROOT (or the environment's CUDNN_ROOT), and KILN_WHEELS.
include(${CMAKE_CURRENT_LIST_DIR}/nvidia_library.cmake)
find_nvidia_library(CuDNN cudnn_version.h cudnn libcudnn.so.9 CUDNN PATCHLEVEL "nvidia/cudnn;nvidia/cu13")
