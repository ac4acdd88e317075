# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Checks that the code shown in README.md and in doc/*.adoc is the code of the examples, which the build
# compiles:
#
#     cmake -P test/doc/check_snippets.cmake
#
# A snippet of README.md is a ```cpp block right below one of these lines:
#
#     <!-- snippet: example/file.cpp -->          the file, from its first #include
#     <!-- snippet: example/file.cpp region -->   what is between "//[region" and "//]" in it
#
# A snippet of a page in doc is a [source,cpp] listing between lines of ----, right below a line
#
#     // snippet: example/file.cpp region
#
# The region may be indented in the file; the page shows it without the indentation of its "//[region".

cmake_minimum_required(VERSION 3.16...3.30)

get_filename_component(root "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)

# Sets ${before} and ${after} to what is on either side of the first ${mark} in ${text}.
function(split text mark before after)
  string(FIND "${text}" "${mark}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "there should be a \"${mark}\" in: ${text}")
  endif()
  string(SUBSTRING "${text}" 0 ${position} head)
  string(LENGTH "${mark}" length)
  math(EXPR position "${position} + ${length}")
  string(SUBSTRING "${text}" ${position} -1 tail)
  set(${before} "${head}" PARENT_SCOPE)
  set(${after} "${tail}" PARENT_SCOPE)
endfunction()

# check(PAGE MARKER OPENING CLOSING): compares the snippets of a page, and sets ${count} to their number.
function(check page marker opening closing)
  set(number 0)
  file(READ "${root}/${page}" rest)
  string(FIND "${rest}" "${marker}" found)
  while(NOT found EQUAL -1)
    split("${rest}" "${marker}" ignored rest)
    split("${rest}" "${opening}" source rest)
    split("${rest}" "${closing}" shown rest)

    if(source MATCHES "^([^ \n]+) ([^ \n]+)$")
      set(region "${CMAKE_MATCH_2}")
      file(READ "${root}/${CMAKE_MATCH_1}" text)
      split("${text}" "//[${region}\n" before text)
      split("${text}" "//]" expected ignored)
      string(REGEX REPLACE ".*\n" "" indentation "${before}")
      string(REPLACE "\n${indentation}" "\n" expected "\n${expected}")
      string(SUBSTRING "${expected}" 1 -1 expected)
    elseif(source MATCHES "^[^ \n]+$")
      file(READ "${root}/${source}" text)
      split("${text}" "#include" ignored text)
      set(expected "#include${text}")
    else()
      message(FATAL_ERROR "${page}: what is \"${source}\"?")
    endif()

    if(NOT "${shown}" STREQUAL "${expected}")
      message(FATAL_ERROR "${page} differs from ${source}. It should be:\n${expected}")
    endif()
    math(EXPR number "${number} + 1")
    string(FIND "${rest}" "${marker}" found)
  endwhile()
  set(count ${number} PARENT_SCOPE)
endfunction()

check(README.md "<!-- snippet: " " -->\n```cpp\n" "```\n")
if(count EQUAL 0)
  message(FATAL_ERROR "README.md has no snippets")
endif()
message(STATUS "README.md: ${count} snippets are up to date")

set(in_pages 0)
file(GLOB pages RELATIVE "${root}" "${root}/doc/*.adoc")
foreach(page IN LISTS pages)
  check("${page}" "// snippet: " "\n[source,cpp]\n----\n" "----\n")
  if(count GREATER 0)
    message(STATUS "${page}: ${count} snippets are up to date")
  endif()
  math(EXPR in_pages "${in_pages} + ${count}")
endforeach()
if(in_pages EQUAL 0)
  message(FATAL_ERROR "the pages in doc have no snippets")
endif()
