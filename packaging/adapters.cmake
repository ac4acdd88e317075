# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# A target for each adapter of moor/adapt whose library is found: moor::adapt_libpq. Included by the project and
# by the installed package, after moor::moor.

find_path(MOOR_LIBPQ_INCLUDE_DIR libpq-fe.h PATH_SUFFIXES postgresql pgsql)
find_library(MOOR_LIBPQ_LIBRARY pq)
mark_as_advanced(MOOR_LIBPQ_INCLUDE_DIR MOOR_LIBPQ_LIBRARY)
if(MOOR_LIBPQ_INCLUDE_DIR AND MOOR_LIBPQ_LIBRARY AND NOT TARGET moor::adapt_libpq)
  add_library(moor::adapt_libpq INTERFACE IMPORTED GLOBAL)
  set_target_properties(moor::adapt_libpq PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${MOOR_LIBPQ_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "moor::moor;${MOOR_LIBPQ_LIBRARY}")
endif()
