# find_nvidia_library(NAME HEADER LIBRARY SONAME PREFIX PATCH WHEELS): what FindCuDNN and FindNCCL do: the target NAME::LIBRARY, from the
# CUDA toolkit's folder, Debian's or NVIDIA's packages, or Python wheels, folders WHEELS of site-packages. Hints: NAME_ROOT (or the
# environment's, in capitals), and KILN_WHEELS, a list of site-packages folders. HEADER has the version, as PREFIX_MAJOR, _MINOR and _PATCH.
#
# Wheels have no unversioned library, so SONAME is asked for besides; NAMES_PER_DIR, so that a header is never paired with another folder's
# library. A macro, since what it finds is the caller's.
include(FindPackageHandleStandardArgs)
macro(find_nvidia_library NAME HEADER LIBRARY SONAME PREFIX PATCH WHEELS)
  string(TOUPPER ${NAME} _nvidia_capitals)
  set(_nvidia_hints ${${NAME}_ROOT} $ENV{${_nvidia_capitals}_ROOT} ${CUDAToolkit_TARGET_DIR} ${CUDAToolkit_LIBRARY_ROOT}
      ${CUDAToolkit_BIN_DIR}/..)
  foreach(_nvidia_folder ${KILN_WHEELS})
    foreach(_nvidia_wheel ${WHEELS})
      list(APPEND _nvidia_hints ${_nvidia_folder}/${_nvidia_wheel})
    endforeach()
  endforeach()
  find_path(${NAME}_INCLUDE_DIR ${HEADER} HINTS ${_nvidia_hints}
            PATH_SUFFIXES include include/x86_64-linux-gnu include/aarch64-linux-gnu)
  find_library(${NAME}_LIBRARY NAMES ${LIBRARY} ${SONAME} NAMES_PER_DIR HINTS ${_nvidia_hints}
               PATH_SUFFIXES lib lib64 lib/x86_64-linux-gnu lib/aarch64-linux-gnu)
  unset(${NAME}_VERSION)
  if(${NAME}_INCLUDE_DIR)
    file(READ ${${NAME}_INCLUDE_DIR}/${HEADER} _nvidia_text)
    set(_nvidia_numbers "")
    foreach(_nvidia_key MAJOR MINOR ${PATCH})
      string(REGEX MATCH "define ${PREFIX}_${_nvidia_key} +([0-9]+)" _nvidia_match "${_nvidia_text}")
      list(APPEND _nvidia_numbers ${CMAKE_MATCH_1})
    endforeach()
    list(JOIN _nvidia_numbers "." ${NAME}_VERSION)
  endif()
  foreach(_nvidia_scratch capitals hints folder wheel text numbers key match)
    unset(_nvidia_${_nvidia_scratch})
  endforeach()
  unset(_nvidia_scratch)
  find_package_handle_standard_args(${NAME} REQUIRED_VARS ${NAME}_LIBRARY ${NAME}_INCLUDE_DIR VERSION_VAR ${NAME}_VERSION)
  if(${NAME}_FOUND AND NOT TARGET ${NAME}::${LIBRARY})
    add_library(${NAME}::${LIBRARY} UNKNOWN IMPORTED)
    set_target_properties(${NAME}::${LIBRARY} PROPERTIES IMPORTED_LOCATION ${${NAME}_LIBRARY}
                          INTERFACE_INCLUDE_DIRECTORIES ${${NAME}_INCLUDE_DIR})
  endif()
  mark_as_advanced(${NAME}_INCLUDE_DIR ${NAME}_LIBRARY)
endmacro()
