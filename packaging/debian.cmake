# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# cpack makes a Debian package: cmake -S . -B build -DMOOR_BUILD_TESTS=OFF -DMOOR_BUILD_EXAMPLES=OFF, then
# cpack --config build/CPackConfig.cmake.

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The Moor authors")
set(CPACK_DEBIAN_PACKAGE_NAME libmoor-dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
# In Debian 12 Boost 1.81 is not the default.
set(CPACK_DEBIAN_PACKAGE_DEPENDS
  "libboost-dev (>= ${moor_boost_version}) | libboost${moor_boost_version}-dev")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "${PROJECT_DESCRIPTION}
 Moor consists of headers. A program that runs a Boost.Asio io_context can wait
 until a file descriptor of another library is ready, with any completion token.")

# The licence where Debian has it.
install(FILES LICENSE_1_0.txt DESTINATION share/doc/libmoor-dev RENAME copyright
  COMPONENT debian EXCLUDE_FROM_ALL)
set(CPACK_COMPONENTS_ALL Unspecified debian)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)

include(CPack)
