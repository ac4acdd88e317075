# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""A recipe for Conan 2. The sources are the checkout that contains this file."""
import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load


class Moor(ConanFile):
    name = "moor"
    description = "Readiness of native handles inside an existing Boost.Asio execution context"
    license = "BSL-1.0"
    package_type = "header-library"
    settings = "os", "compiler"
    no_copy_source = True

    def set_version(self):
        header = load(self, os.path.join(self._checkout(), "include", "moor", "version.hpp"))
        number = int(re.search(r"#define MOOR_VERSION (\d+)", header).group(1))
        self.version = f"{number // 100000}.{number // 100 % 1000}.{number % 100}"

    def export_sources(self):
        for pattern in "include/*.hpp", "LICENSE_1_0.txt":
            copy(self, pattern, src=self._checkout(), dst=self.export_sources_folder)

    def requirements(self):
        self.requires("boost/[>=1.81.0]", transitive_headers=True)

    def package_id(self):
        self.info.clear()

    def validate(self):
        if self.settings.os == "Windows":
            raise ConanInvalidConfiguration("Moor needs POSIX")
        check_min_cppstd(self, 17)

    def package(self):
        copy(self, "*.hpp", src=os.path.join(self.source_folder, "include"),
             dst=os.path.join(self.package_folder, "include"))
        copy(self, "LICENSE_1_0.txt", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.requires = ["boost::headers"]
        self.cpp_info.system_libs = ["pthread"]
        self.cpp_info.set_property("cmake_file_name", "moor")
        self.cpp_info.set_property("cmake_target_name", "moor::moor")
        self.cpp_info.set_property("pkg_config_name", "moor")

    def _checkout(self):
        return os.path.join(self.recipe_folder, "..", "..")
