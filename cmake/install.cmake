# make install: programs, one static library of everything, headers, a CMake package and a pkg-config file. docs/embedding.md.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(KILN_OBJECTS $<TARGET_OBJECTS:kiln_models> $<TARGET_OBJECTS:kiln_engine> $<TARGET_OBJECTS:kiln_kernels_cpu>)
if(KILN_WITH_CUDA)
  list(APPEND KILN_OBJECTS $<TARGET_OBJECTS:kiln_kernels_gpu>)
endif()
add_library(kiln STATIC ${KILN_OBJECTS})
set_target_properties(kiln PROPERTIES LINKER_LANGUAGE CXX ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

# The public headers, and what they include. Those that are left out are the insides of one .cpp or .cu file.
foreach(folder models engine kernels)
  install(DIRECTORY ${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kiln/${folder} FILES_MATCHING PATTERN "*.h"
          PATTERN "exec" EXCLUDE PATTERN "cpu" EXCLUDE PATTERN "gpu" EXCLUDE PATTERN "backend" EXCLUDE
          PATTERN "activation_math.h" EXCLUDE PATTERN "philox.h" EXCLUDE PATTERN "picture_codec.h" EXCLUDE
          PATTERN "dataset_cache.h" EXCLUDE PATTERN "pth_pickle.h" EXCLUDE PATTERN "video_sink.h" EXCLUDE)
endforeach()
install(FILES kernels/exec/api.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kiln/kernels/exec)
install(TARGETS kiln ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
get_property(programs GLOBAL PROPERTY KILN_PROGRAMS)
list(FILTER programs EXCLUDE REGEX "^bench_")
install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

set(KILN_PKG_MODULES libpng libjpeg libwebp libwebpdemux libexif libzip)
if(KILN_WITH_VIDEO)
  list(APPEND KILN_PKG_MODULES ${KILN_FFMPEG_MODULES})
endif()
list(JOIN KILN_PKG_MODULES " " KILN_PKG_REQUIRES)
set(KILN_CUDNN_FOLDER "")
if(KILN_GPU_LIBRARIES)
  get_filename_component(KILN_CUDNN_FOLDER ${CuDNN_LIBRARY} DIRECTORY)
endif()
set(KILN_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/kiln)
configure_package_config_file(cmake/kilnConfig.cmake.in ${CMAKE_BINARY_DIR}/kilnConfig.cmake INSTALL_DESTINATION ${KILN_PACKAGE_DIR}
                              PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/kilnConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/kilnConfig.cmake ${CMAKE_BINARY_DIR}/kilnConfigVersion.cmake DESTINATION ${KILN_PACKAGE_DIR})
set(KILN_PKG_DEFINES "")
set(KILN_PKG_LIBS "")
if(KILN_WITH_CUDA)
  set(KILN_PKG_DEFINES "-DKILN_WITH_CUDA=1")
  set(KILN_PKG_LIBS "-L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt -ldl")
  if(KILN_GPU_LIBRARIES)  # by its path: NVIDIA's wheels have no libcudnn.so, and their folder is not the loader's
    set(KILN_PKG_LIBS "${CuDNN_LIBRARY} -Wl,-rpath,${KILN_CUDNN_FOLDER} ${KILN_PKG_LIBS}")
  endif()
endif()
configure_file(cmake/kiln.pc.in ${CMAKE_BINARY_DIR}/kiln.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/kiln.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
