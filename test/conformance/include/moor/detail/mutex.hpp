//
// test/conformance/include/moor/detail/mutex.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Stands before Moor's header of this name, which it includes. The lock of a state, just before it
// is released, has note_section() write down what the section has made of the state.
//

#ifndef MOOR_TEST_CONFORMANCE_MUTEX_HPP
#define MOOR_TEST_CONFORMANCE_MUTEX_HPP

#pragma GCC system_header // -Wpedantic does not allow #include_next

#include_next <moor/detail/mutex.hpp>

namespace test {

/// The section of `file` and `function` that has locked `mutex` is over. See trace.cpp.
void note_section(const void* mutex, const char* file, const char* function) noexcept;

} // namespace test

namespace moor {
namespace detail {

template <>
class basic_lock<state_mutex> {
public:
    explicit basic_lock(state_mutex& m, const char* file = __builtin_FILE(),
                        const char* function = __builtin_FUNCTION())
        : mutex_(m), file_(file), function_(function) {
        m.lock();
    }
    ~basic_lock() {
        test::note_section(&mutex_, file_, function_);
        mutex_.unlock();
    }
    basic_lock(const basic_lock&) = delete;
    basic_lock& operator=(const basic_lock&) = delete;

private:
    state_mutex& mutex_;
    const char* file_;
    const char* function_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_TEST_CONFORMANCE_MUTEX_HPP
