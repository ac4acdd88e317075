# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# A target for each adapter of moor/adapt whose library is found: moor::adapt_libpq, .... Included by the project and
# by the installed package, after moor::moor.

# moor_find_adapter(<name> HEADER <header> LIBRARY <library> [PATH_SUFFIXES <suffix>...])
function(moor_find_adapter name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "HEADER;LIBRARY" "PATH_SUFFIXES")
  string(TOUPPER "MOOR_${name}" variable)
  find_path(${variable}_INCLUDE_DIR "${arg_HEADER}" PATH_SUFFIXES ${arg_PATH_SUFFIXES})
  find_library(${variable}_LIBRARY "${arg_LIBRARY}")
  mark_as_advanced(${variable}_INCLUDE_DIR ${variable}_LIBRARY)
  if(${variable}_INCLUDE_DIR AND ${variable}_LIBRARY AND NOT TARGET moor::adapt_${name})
    add_library(moor::adapt_${name} INTERFACE IMPORTED GLOBAL)
    set_target_properties(moor::adapt_${name} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${${variable}_INCLUDE_DIR}"
      INTERFACE_LINK_LIBRARIES "moor::moor;${${variable}_LIBRARY}")
  endif()
endfunction()

# moor_find_adapter_module(<name> <module>...): by pkg-config, for a library with several include directories
function(moor_find_adapter_module name)
  find_package(PkgConfig QUIET)
  if(NOT PkgConfig_FOUND OR TARGET moor::adapt_${name})
    return()
  endif()
  pkg_check_modules(moor_${name} QUIET ${ARGN})
  if(moor_${name}_FOUND) # without its flags, such as -pthread: moor::moor has what is needed
    add_library(moor::adapt_${name} INTERFACE IMPORTED GLOBAL)
    set_target_properties(moor::adapt_${name} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${moor_${name}_INCLUDE_DIRS}"
      INTERFACE_LINK_LIBRARIES "moor::moor;${moor_${name}_LINK_LIBRARIES}")
  endif()
endfunction()

moor_find_adapter_module(glib gio-2.0>=2.72 gio-unix-2.0)
moor_find_adapter(libpq HEADER libpq-fe.h LIBRARY pq PATH_SUFFIXES postgresql pgsql)
moor_find_adapter(c_ares HEADER ares.h LIBRARY cares)

# Linux's own.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT TARGET moor::adapt_inotify)
  add_library(moor::adapt_inotify INTERFACE IMPORTED GLOBAL)
  set_target_properties(moor::adapt_inotify PROPERTIES INTERFACE_LINK_LIBRARIES moor::moor)
endif()
moor_find_adapter(curl HEADER curl/curl.h LIBRARY curl)
moor_find_adapter(zmq HEADER zmq.h LIBRARY zmq)
moor_find_adapter(hiredis HEADER hiredis/hiredis.h LIBRARY hiredis)
moor_find_adapter(rdkafka HEADER librdkafka/rdkafka.h LIBRARY rdkafka)
moor_find_adapter(sd_bus HEADER systemd/sd-bus.h LIBRARY systemd)
moor_find_adapter(alsa HEADER alsa/asoundlib.h LIBRARY asound)
moor_find_adapter(mosquitto HEADER mosquitto.h LIBRARY mosquitto)
