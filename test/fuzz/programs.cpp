// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// An input of the fuzzer is a random program: its bytes are the choices. support/promise_model.hpp
// says what a program must not find. test/fuzz/run.sh builds and runs the fuzzer.

#include "support/dice.hpp"
#include "support/promise_program.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include <signal.h>

namespace {

test::promise::verdict run(test::dice d, test::promise::program::printer p) {
    test::promise::program made(d, 0, std::move(p));
    return made.run(made.make_steps());
}

void print(const std::string& line) { std::cerr << line << '\n'; }

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    ::signal(SIGPIPE, SIG_IGN);
    return 0;
}

/// MOOR_TEST_PRINT=1 prints the steps of each input.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t n) {
    static const bool prints = std::getenv("MOOR_TEST_PRINT") != nullptr;
    const test::dice d(bytes, n);
    const auto found = run(d, prints ? print : nullptr);
    if (!found)
        return 0;
    std::cerr << "\nOn " << test::backend() << ": " << found.what << "\n  " << found.details
              << "\nThe program again, step by step:\n";
    if (!run(d, print))
        std::cerr << "This time it did not fail: it depends on threads, or on the kernel's.\n";
    std::abort();
}
