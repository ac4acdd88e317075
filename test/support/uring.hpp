// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#ifndef MOOR_TEST_SUPPORT_URING_HPP
#define MOOR_TEST_SUPPORT_URING_HPP

namespace test {

/// Has the kernel answer the next n poll requests of Asio's io_uring service with EINVAL, as it
/// does of its own now and then where the handle is a terminal. Nothing where there are none.
void refuse_poll_requests(long n);

/// How many of these are left.
long poll_requests_to_refuse();

/// How often requests were handed to the kernel, or their completions waited for.
long uring_calls();

} // namespace test

#endif
