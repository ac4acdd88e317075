# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Configures, builds and runs a consumer from nothing. Run with -P; the variables are those that
# test/CMakeLists.txt passes.

file(REMOVE_RECURSE "${WORK_DIR}")
set(prefix "${WORK_DIR}/prefix")

if(CONSUMER STREQUAL "installed")
  execute_process(COMMAND "${CMAKE_COMMAND}" --install "${MOOR_BINARY_DIR}" --prefix "${prefix}"
    RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "the installation failed")
  endif()
  list(PREPEND PREFIX_PATH "${prefix}")
endif()

execute_process(RESULT_VARIABLE result COMMAND "${CMAKE_CTEST_COMMAND}"
  --build-and-test "${MOOR_SOURCE_DIR}/test/consumer/${CONSUMER}" "${WORK_DIR}/build"
  --build-generator "${GENERATOR}"
  --build-options
    "-DCMAKE_PREFIX_PATH=${PREFIX_PATH}"
    "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}"
    "-DCMAKE_CXX_STANDARD=${CXX_STANDARD}"
  --test-command "${CMAKE_CTEST_COMMAND}" --output-on-failure)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the consumer failed")
endif()
