# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Checks that the code shown in README.md is the code of the examples, which the build compiles:
#
#     cmake -P test/doc/check_snippets.cmake
#
# A snippet of README.md is a ```cpp block right below one of these lines:
#
#     <!-- snippet: example/file.cpp -->          the file, from its first #include
#     <!-- snippet: example/file.cpp region -->   what is between "//[region" and "//]" in it

cmake_minimum_required(VERSION 3.16...3.30)

get_filename_component(root "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
file(READ "${root}/README.md" rest)

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

set(marker "<!-- snippet: ")
set(count 0)
string(FIND "${rest}" "${marker}" found)
while(NOT found EQUAL -1)
  split("${rest}" "${marker}" ignored rest)
  split("${rest}" " -->\n```cpp\n" source rest)
  split("${rest}" "```\n" shown rest)

  if(source MATCHES "^([^ \n]+) ([^ \n]+)$")
    file(READ "${root}/${CMAKE_MATCH_1}" text)
    split("${text}" "//[${CMAKE_MATCH_2}\n" ignored text)
    split("${text}" "//]" expected ignored)
  elseif(source MATCHES "^[^ \n]+$")
    file(READ "${root}/${source}" text)
    split("${text}" "#include" ignored text)
    set(expected "#include${text}")
  else()
    message(FATAL_ERROR "README.md: what is \"${source}\"?")
  endif()

  if(NOT "${shown}" STREQUAL "${expected}")
    message(FATAL_ERROR "README.md differs from ${source}. It should be:\n${expected}")
  endif()
  math(EXPR count "${count} + 1")
  string(FIND "${rest}" "${marker}" found)
endwhile()

if(count EQUAL 0)
  message(FATAL_ERROR "README.md has no snippets")
endif()
message(STATUS "README.md: ${count} snippets are up to date")
