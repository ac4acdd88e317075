# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Configures, builds and runs a consumer from nothing. Run with -P; the variables are those that
# test/CMakeLists.txt passes.

file(REMOVE_RECURSE "${WORK_DIR}")
set(prefix "${WORK_DIR}/prefix")
set(project "${MOOR_SOURCE_DIR}/test/consumer/${CONSUMER}")
list(PREPEND PREFIX_PATH "${prefix}" "${WORK_DIR}/parent/prefix")
string(REPLACE ";" "\\;" PREFIX_PATH "${PREFIX_PATH}") # a list is one argument

# run(<what fails> <command>...)
function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed")
  endif()
endfunction()

if(CONSUMER STREQUAL "installed" OR CONSUMER STREQUAL "exported")
  run("the installation" "${CMAKE_COMMAND}" --install "${MOOR_BINARY_DIR}" --prefix "${prefix}")
  foreach(file IN ITEMS include/moor.hpp share/licenses/moor/LICENSE_1_0.txt)
    if(NOT EXISTS "${prefix}/${file}")
      message(FATAL_ERROR "${file} was not installed")
    endif()
  endforeach()
endif()
if(CONSUMER STREQUAL "exported")
  run("the parent project" "${CMAKE_COMMAND}" -S "${project}" -B "${WORK_DIR}/parent" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}" "-DCMAKE_PREFIX_PATH=${PREFIX_PATH}"
    "-DCMAKE_INSTALL_PREFIX=${WORK_DIR}/parent/prefix")
  run("the installation of the parent project" "${CMAKE_COMMAND}" --install "${WORK_DIR}/parent")
  if(EXISTS "${WORK_DIR}/parent/prefix/include" OR EXISTS "${WORK_DIR}/parent/prefix/lib/cmake/moor")
    message(FATAL_ERROR "the parent project installed Moor without MOOR_INSTALL")
  endif()
  string(APPEND project /user)
endif()

run("the consumer" "${CMAKE_CTEST_COMMAND}"
  --build-and-test "${project}" "${WORK_DIR}/build"
  --build-generator "${GENERATOR}"
  --build-options
    "-DCMAKE_PREFIX_PATH=${PREFIX_PATH}"
    "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}"
    "-DCMAKE_CXX_STANDARD=${CXX_STANDARD}"
  --test-command "${CMAKE_CTEST_COMMAND}" --output-on-failure)

# Without CMake
find_program(PKG_CONFIG pkg-config)
if(CONSUMER STREQUAL "installed" AND PKG_CONFIG)
  set(ENV{PKG_CONFIG_PATH} "${prefix}/share/pkgconfig")
  run("pkg-config" "${PKG_CONFIG}" --exists "moor >= 0.1")
  execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs moor OUTPUT_VARIABLE flags)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  run("the consumer with pkg-config" "${CXX_COMPILER}" -std=c++${CXX_STANDARD}
    "${MOOR_SOURCE_DIR}/test/consumer/main.cpp" ${flags} -o "${WORK_DIR}/without_cmake")
  run("the consumer with pkg-config" "${WORK_DIR}/without_cmake")
endif()
