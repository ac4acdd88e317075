//
// moor/adapt/zmq_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for ZeroMQ: the owner of a socket, messages, errors.
//

#ifndef MOOR_ADAPT_ZMQ_TYPES_HPP
#define MOOR_ADAPT_ZMQ_TYPES_HPP

#include <moor/error.hpp>

#include <boost/throw_exception.hpp>

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <zmq.h>

namespace moor {
namespace adapt {

/// Closes a socket of libzmq.
/**
 * @par Example
 * @code
 * moor::adapt::zeromq_handle s(zmq_socket(zmq_context, ZMQ_PULL));
 * @endcode
 */
struct zeromq_closer {
    /// Closes the socket. `zmq_close` does not block; see `ZMQ_LINGER` for messages not yet sent.
    void operator()(void* s) const noexcept { zmq_close(s); }
};

/// An owner of a socket of libzmq.
using zeromq_handle = std::unique_ptr<void, zeromq_closer>;

// ---- errors -------------------------------------------------------------------------------------

/// Errors of libzmq that no other library has.
/**
 * The other errors of libzmq are values of `errno`, in the same category. They compare equal to the
 * generic conditions: `ec == boost::system::errc::host_unreachable`.
 */
enum class zeromq_error {
    /// EFSM: the socket first has to send an answer (REP), or to receive one (REQ).
    wrong_state = EFSM,
    /// ENOCOMPATPROTO: the transport does not fit the type of the socket.
    incompatible_protocol = ENOCOMPATPROTO,
    /// ETERM: the context of libzmq is being terminated. Equal to `errc::operation_canceled`.
    terminated = ETERM,
    /// EMTHREAD: the context of libzmq has no I/O thread.
    no_io_thread = EMTHREAD
};

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class zeromq_category_impl final : public boost::system::error_category {
public:
    constexpr zeromq_category_impl() noexcept : error_category(0x5b0e9c3d7a61f428ull) {}

    const char* name() const noexcept override { return "zeromq"; }

    std::string message(int value) const override { return zmq_strerror(value); }

    const char* message(int value, char*, std::size_t) const noexcept override {
        return zmq_strerror(value);
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        if (value == ETERM)
            return errc::make_error_condition(errc::operation_canceled);
        if (value < ZMQ_HAUSNUMERO)
            return boost::system::error_condition(value, boost::system::generic_category());
        return boost::system::error_condition(value, *this);
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of libzmq's errors; its name is "zeromq". A value is one of `zmq_errno`.
inline const boost::system::error_category& zeromq_category() noexcept {
    static const detail::zeromq_category_impl instance;
    return instance;
}

/// Makes an `error_code` of a `zeromq_error`; this is how `zeromq_error` converts to `error_code`.
/**
 * @param e The error.
 * @returns An error code of `zeromq_category()`.
 */
inline error_code make_error_code(zeromq_error e) noexcept {
    return error_code(static_cast<int>(e), zeromq_category());
}

// ---- messages -----------------------------------------------------------------------------------

/// A part of a message: owns a `zmq_msg_t`.
/**
 * @par Example
 * @code
 * moor::adapt::zeromq_part part(1000); // bytes, to be filled in
 * std::memset(part.data(), 'x', part.size());
 * @endcode
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 */
class zeromq_part {
public:
    /// Constructs an empty part.
    zeromq_part() noexcept { zmq_msg_init(&msg_); }

    /// Constructs a part of this many bytes, which are not initialized.
    /**
     * @param size The number of bytes.
     * @throws std::bad_alloc If memory runs out.
     */
    explicit zeromq_part(std::size_t size) {
        if (zmq_msg_init_size(&msg_, size) != 0)
            boost::throw_exception(std::bad_alloc());
    }

    /// Constructs a part with a copy of these bytes.
    /**
     * @param bytes The bytes: a `std::string`, a `std::string_view` or a character string.
     * @throws std::bad_alloc If memory runs out.
     */
    template <class Bytes,
              std::enable_if_t<std::is_convertible<const Bytes&, std::string_view>::value, int> = 0>
    zeromq_part(const Bytes& bytes) : zeromq_part(std::string_view(bytes).size()) {
        const std::string_view v(bytes);
        if (!v.empty())
            std::memcpy(data(), v.data(), v.size());
    }

    /// Moves a part.
    /**
     * @param other The part to move from, which is empty afterwards.
     */
    zeromq_part(zeromq_part&& other) noexcept : zeromq_part() { *this = std::move(other); }
    /// Moves a part.
    /**
     * @param other The part to move from, which is empty afterwards.
     */
    zeromq_part& operator=(zeromq_part&& other) noexcept {
        if (this != &other)
            zmq_msg_move(&msg_, &other.msg_);
        return *this;
    }

    zeromq_part(const zeromq_part&) = delete;
    zeromq_part& operator=(const zeromq_part&) = delete;

    /// Releases the bytes.
    ~zeromq_part() { zmq_msg_close(&msg_); }

    /// Returns a part with the same bytes, which both parts share: do not change the bytes then.
    zeromq_part share() const {
        zeromq_part p;
        zmq_msg_copy(&p.msg_, &msg_);
        return p;
    }

    /// Returns the bytes.
    void* data() noexcept { return zmq_msg_data(&msg_); }
    /// Returns the bytes.
    const void* data() const noexcept { return zmq_msg_data(&msg_); }
    /// Returns the number of bytes.
    std::size_t size() const noexcept { return zmq_msg_size(&msg_); }

    /// Returns the bytes as characters. The view is valid until the part is changed or destroyed.
    std::string_view view() const noexcept {
        return std::string_view(static_cast<const char*>(data()), size());
    }

    /// Returns libzmq's message, for functions such as `zmq_msg_gets`.
    zmq_msg_t* native_handle() noexcept { return &msg_; }

private:
    mutable zmq_msg_t msg_; // libzmq takes no constant messages
};

/// A message: one or several parts.
/**
 * A container of parts: `size`, `[]`, `begin` and `end` are those of a vector.
 *
 * @par Example
 * @code
 * moor::adapt::zeromq_message m(client, "", "the answer"); // three parts
 * m.add(more);
 * std::cout << m.back().view();
 * @endcode
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 */
class zeromq_message {
public:
    /// Constructs a message without parts, which can't be sent.
    zeromq_message() = default;

    /// Constructs a message of these parts.
    /**
     * @param first A `zeromq_part`, or bytes as its constructor takes them.
     * @param others The same.
     */
    template <class First, class... Others,
              std::enable_if_t<std::is_convertible<First&&, zeromq_part>::value, int> = 0>
    zeromq_message(First&& first, Others&&... others) {
        parts_.reserve(1 + sizeof...(others));
        add(std::forward<First>(first));
        (add(std::forward<Others>(others)), ...);
    }

    /// Adds a part behind the others.
    /**
     * @param part A `zeromq_part`, or bytes as its constructor takes them.
     */
    zeromq_message& add(zeromq_part part) {
        parts_.push_back(std::move(part));
        return *this;
    }

    /// Returns a message that shares the bytes with this one: do not change the bytes then.
    zeromq_message share() const {
        zeromq_message m;
        m.parts_.reserve(size());
        for (const zeromq_part& p : parts_)
            m.add(p.share());
        return m;
    }

    /// Returns the number of parts.
    std::size_t size() const noexcept { return parts_.size(); }
    /// Returns whether there are no parts.
    bool empty() const noexcept { return parts_.empty(); }

    /// Returns a part.
    zeromq_part& operator[](std::size_t i) noexcept { return parts_[i]; }
    /// Returns a part.
    const zeromq_part& operator[](std::size_t i) const noexcept { return parts_[i]; }
    /// Returns the first part.
    zeromq_part& front() noexcept { return parts_.front(); }
    /// Returns the first part.
    const zeromq_part& front() const noexcept { return parts_.front(); }
    /// Returns the last part, which has the contents where the parts before it are addresses.
    zeromq_part& back() noexcept { return parts_.back(); }
    /// Returns the last part, which has the contents where the parts before it are addresses.
    const zeromq_part& back() const noexcept { return parts_.back(); }

    /// Returns the first position.
    auto begin() noexcept { return parts_.begin(); }
    /// Returns the first position.
    auto begin() const noexcept { return parts_.begin(); }
    /// Returns the position behind the last part.
    auto end() noexcept { return parts_.end(); }
    /// Returns the position behind the last part.
    auto end() const noexcept { return parts_.end(); }

private:
    std::vector<zeromq_part> parts_;
};

} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<::moor::adapt::zeromq_error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ADAPT_ZMQ_TYPES_HPP
