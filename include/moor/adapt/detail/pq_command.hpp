//
// moor/adapt/detail/pq_command.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A command that libpq has sent, or a wait for what another call has sent: takes results and rows
// from libpq, until it is over. Knows neither the loop nor the commands beside it.
//

#ifndef MOOR_ADAPT_DETAIL_PQ_COMMAND_HPP
#define MOOR_ADAPT_DETAIL_PQ_COMMAND_HPP

#include <moor/adapt/libpq_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include <libpq-fe.h>

namespace moor {
namespace adapt {
namespace detail {

struct pq_command {
    using ec_operation = operation<void(error_code)>;
    using result_operation = operation<void(error_code, pq_result)>;
    using row_operation = operation<void(error_code, std::string)>;

    enum kind_type {
        whole,  // all results of a command; the last one, or the error, is passed on
        single, // the next result, or the null pointer behind the last one
        row,    // the next row of COPY TO
        sync    // the end of the pipeline's segment
    };

    kind_type kind = whole;
    result_operation result{}; // of `whole` and `single`
    row_operation row_of_copy{};
    ec_operation at_sync{};

    // What the operation completes with.
    error_code ec{};
    pq_result kept{};
    std::string text{};

    bool has_all_rows = false;
    boost::asio::cancellation_type_t cancelled = boost::asio::cancellation_type::none;
    bool must_cancel = false; // ask the server to

    /// Takes what libpq has. True: the command is over.
    bool take(PGconn* c) {
        if (kind == row && !has_all_rows)
            return take_row(c);
        bool is_over = false;
        for ([[maybe_unused]] bool was_end = false; !is_over;) {
            if (PQisBusy(c))
                return false;
            is_over = take_result(c, pq_result(PQgetResult(c)), was_end);
        }
        return true;
    }

    void complete() {
        result.complete(ec, std::move(kept));
        at_sync.complete(ec);
        row_of_copy.complete(ec, std::move(text));
    }

private:
    bool take_row(PGconn* c) {
        char* bytes = nullptr;
        const int size = PQgetCopyData(c, &bytes, 1);
        const std::unique_ptr<char, pq_deleter> owner(bytes);
        if (size == 0)
            return false;
        if (size == -1) { // the results say how the copy ended
            has_all_rows = true;
            return take(c);
        }
        if (size > 0)
            text.assign(bytes, static_cast<std::size_t>(size));
        else // there is no copy
            ec = error_without_result(c);
        return true;
    }

    /// `was_end`: whether the previous result was null.
    bool take_result(PGconn* c, pq_result r, bool& was_end) {
        const ExecStatusType status = PQresultStatus(r.get());
        const bool is_copy =
            status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
        if (kind == single) {
            ec = error_of(c, r.get());
            kept = std::move(r);
            return true;
        }
#if defined(LIBPQ_HAS_PIPELINING)
        was_end = was_end && !r;
        if (status == PGRES_PIPELINE_SYNC)
            return kind == sync;
        if (kind == sync && is_copy) { // of which libpq has none in a pipeline; it would not end
            ec = pq_error::request_refused;
            return true;
        }
        if (kind == sync && (r || !std::exchange(was_end, true)))
            return false; // the results of commands that nobody waits for
#endif
        const bool is_end = !r || is_copy;
        if (r && !pq_error_of(kept.get()))
            kept = std::move(r); // the first error, or else the last result
        if (!is_end)
            return false;
        ec = kept ? error_of(c, kept.get()) : error_without_result(c);
        if (kind == row && !ec)
            ec = boost::asio::error::eof;
        return true;
    }

    /// The error if libpq has neither a result nor a row.
    static error_code error_without_result(const PGconn* c) noexcept {
        return PQstatus(c) == CONNECTION_OK ? pq_error::request_refused : pq_error::connection_lost;
    }

    static error_code error_of(const PGconn* c, const PGresult* r) noexcept {
        const error_code found = pq_error_of(r);
        const bool is_lost = found == pq_error::command_failed && PQstatus(c) != CONNECTION_OK;
        return is_lost ? error_code(pq_error::connection_lost) : found;
    }
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_PQ_COMMAND_HPP
