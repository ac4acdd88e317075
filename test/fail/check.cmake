# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Compiles SOURCE with COMPILER, in the standard STANDARD; see CMakeLists.txt for what is expected.

set(flags)
foreach(directory IN LISTS INCLUDES)
  if(NOT directory STREQUAL "/usr/include") # the compiler minds
    list(APPEND flags "-I${directory}")
  endif()
endforeach()
set(ENV{LC_ALL} C)
execute_process(
  COMMAND "${COMPILER}" -std=c++${STANDARD} -fsyntax-only -pthread ${flags} "${SOURCE}"
  RESULT_VARIABLE result ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles")
endif()

# Semicolons and brackets mean something in lists.
string(REGEX REPLACE "[][;]" "," output "${output}")
string(REGEX MATCHALL "[^\n]*(: error: |: fatal error: )[^\n]*" errors "${output}")
list(LENGTH errors count)
list(GET errors 0 first)

file(READ "${SOURCE}" text)
if(text MATCHES "// expected: ([^\n]*)")
  set(expected "${CMAKE_MATCH_1}")
else()
  string(FIND "${text}" "// <- the error" position)
  string(SUBSTRING "${text}" 0 ${position} before)
  string(REGEX MATCHALL "\n" newlines "${before}")
  list(LENGTH newlines line)
  math(EXPR line "${line} + 1")
  get_filename_component(name "${SOURCE}" NAME)
  string(REPLACE "." "\\." name "${name}")
  set(expected "${name}:${line}:")
endif()
if(NOT first MATCHES "${expected}" OR count GREATER 2)
  message(FATAL_ERROR "${count} errors, and the first is not \"${expected}\":\n${output}")
endif()
