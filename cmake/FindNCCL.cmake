# NCCL::nccl. Hints: NCCL_ROOT (or the environment's), and KILN_WHEELS.
include(${CMAKE_CURRENT_LIST_DIR}/nvidia_library.cmake)
find_nvidia_library(NCCL nccl.h nccl libnccl.so.2 NCCL PATCH nvidia/nccl)
