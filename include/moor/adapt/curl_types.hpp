//
// moor/adapt/curl_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for libcurl: owners of libcurl's objects, errors.
//

#ifndef MOOR_ADAPT_CURL_TYPES_HPP
#define MOOR_ADAPT_CURL_TYPES_HPP

#include <moor/error.hpp>

#include <cstddef>
#include <memory>
#include <string>

#include <curl/curl.h>

namespace moor {
namespace adapt {

/// Frees libcurl's objects.
/**
 * @par Example
 * @code
 * moor::adapt::curl_handle easy(curl_easy_init());
 * @endcode
 */
struct curl_deleter {
    /// Frees an easy handle.
    void operator()(CURL* easy) const noexcept { curl_easy_cleanup(easy); }
    /// Frees a list, such as one of HTTP headers.
    void operator()(curl_slist* list) const noexcept { curl_slist_free_all(list); }
};

/// An owner of an easy handle.
using curl_handle = std::unique_ptr<CURL, curl_deleter>;
/// An owner of a list.
using curl_list = std::unique_ptr<curl_slist, curl_deleter>;

// ---- errors -------------------------------------------------------------------------------------

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class curl_category_impl final : public boost::system::error_category {
public:
    constexpr curl_category_impl() noexcept : error_category(0x51d0a6b3c97e284full) {}

    const char* name() const noexcept override { return "libcurl"; }
    std::string message(int value) const override { return text(value); }
    const char* message(int value, char*, std::size_t) const noexcept override {
        return text(value);
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (value) {
        case CURLE_OPERATION_TIMEDOUT:
            return errc::make_error_condition(errc::timed_out);
        case CURLE_COULDNT_CONNECT:
            return errc::make_error_condition(errc::connection_refused);
        case CURLE_ABORTED_BY_CALLBACK:
            return errc::make_error_condition(errc::operation_canceled);
        case CURLE_OUT_OF_MEMORY:
            return errc::make_error_condition(errc::not_enough_memory);
        case CURLE_URL_MALFORMAT:
        case CURLE_BAD_FUNCTION_ARGUMENT:
            return errc::make_error_condition(errc::invalid_argument);
        default:
            return boost::system::error_condition(value, *this);
        }
    }

private:
    static const char* text(int value) noexcept {
        return curl_easy_strerror(static_cast<CURLcode>(value));
    }
};

class curl_multi_category_impl final : public boost::system::error_category {
public:
    constexpr curl_multi_category_impl() noexcept : error_category(0x2f8e47c1b06d95a3ull) {}

    const char* name() const noexcept override { return "libcurl multi"; }
    std::string message(int value) const override { return text(value); }
    const char* message(int value, char*, std::size_t) const noexcept override {
        return text(value);
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (value) {
        case CURLM_OUT_OF_MEMORY:
            return errc::make_error_condition(errc::not_enough_memory);
        case CURLM_ADDED_ALREADY:
            return errc::make_error_condition(errc::device_or_resource_busy);
        case CURLM_BAD_HANDLE:
        case CURLM_BAD_EASY_HANDLE:
            return errc::make_error_condition(errc::invalid_argument);
        default:
            return boost::system::error_condition(value, *this);
        }
    }

private:
    static const char* text(int value) noexcept {
        return curl_multi_strerror(static_cast<CURLMcode>(value));
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the results of transfers, whose values are `CURLcode`; its name is "libcurl".
inline const boost::system::error_category& curl_category() noexcept {
    static const detail::curl_category_impl instance;
    return instance;
}

/// The category of the results of the multi handle, whose values are `CURLMcode`.
inline const boost::system::error_category& curl_multi_category() noexcept {
    static const detail::curl_multi_category_impl instance;
    return instance;
}

/// Makes the `error_code` of a result of libcurl; no error for `CURLE_OK`.
/**
 * | value                                                | compares equal to          |
 * | ---------------------------------------------------- | -------------------------- |
 * | `CURLE_OPERATION_TIMEDOUT`                           | `errc::timed_out`          |
 * | `CURLE_COULDNT_CONNECT`                              | `errc::connection_refused` |
 * | `CURLE_ABORTED_BY_CALLBACK`                          | `errc::operation_canceled` |
 * | `CURLE_OUT_OF_MEMORY`                                | `errc::not_enough_memory`  |
 * | `CURLE_URL_MALFORMAT`, `CURLE_BAD_FUNCTION_ARGUMENT` | `errc::invalid_argument`   |
 * | the others                                           | themselves only            |
 *
 * @param result The result of a transfer or of a function.
 * @returns An error code of `curl_category()`, or no error.
 *
 * @par Example
 * @code
 * if (ec == moor::adapt::curl_error(CURLE_HTTP_RETURNED_ERROR)) // with CURLOPT_FAILONERROR
 *     curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
 * @endcode
 */
inline error_code curl_error(CURLcode result) noexcept {
    return result == CURLE_OK ? error_code()
                              : error_code(static_cast<int>(result), curl_category());
}

/// Makes the `error_code` of a result of the multi handle; no error for `CURLM_OK`.
/**
 * `CURLM_OUT_OF_MEMORY` compares equal to `errc::not_enough_memory`, `CURLM_ADDED_ALREADY` to
 * `errc::device_or_resource_busy`, and `CURLM_BAD_HANDLE` and `CURLM_BAD_EASY_HANDLE` to
 * `errc::invalid_argument`.
 *
 * @param result The result of a function.
 * @returns An error code of `curl_multi_category()`.
 */
inline error_code curl_error(CURLMcode result) noexcept {
    return result == CURLM_OK ? error_code()
                              : error_code(static_cast<int>(result), curl_multi_category());
}

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_CURL_TYPES_HPP
