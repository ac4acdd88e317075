//
// test/bench/adapters/libpq.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Queries on one connection to PostgreSQL, which servers.sh starts: one at a time, and in a
// pipeline of 100. The library's own use: PQexec, and PQsendQueryParams with a PQgetResult that
// blocks.
//

#include "bench.hpp"

#include <moor/adapt/libpq.hpp>

#include <boost/asio/io_context.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <libpq-fe.h>

namespace {

namespace adapt = moor::adapt;
constexpr std::uint64_t pipeline = 100;
constexpr char connection_string[] = "host=127.0.0.1 sslmode=disable";

void check(const adapt::pq_result& r) {
    bench::check(r && PQntuples(r.get()) == 1 && std::string(PQgetvalue(r.get(), 0, 0)) == "42",
                 "wrong result");
}

std::shared_ptr<PGconn> connect() {
    std::shared_ptr<PGconn> c(PQconnectdb(connection_string), &PQfinish);
    bench::check(PQstatus(c.get()) == CONNECTION_OK, PQerrorMessage(c.get()));
    return c;
}

bench::work blocking_one() {
    return [c = connect()](std::uint64_t times) {
        for (std::uint64_t i = 0; i != times; ++i)
            check(adapt::pq_result(PQexec(c.get(), "select 42")));
    };
}

bench::work blocking_pipeline() {
    auto c = connect();
    bench::check(PQenterPipelineMode(c.get()) == 1, "no pipeline");
    return [c](std::uint64_t times) {
        for (std::uint64_t i = 0; i != times; ++i)
            PQsendQueryParams(c.get(), "select 42", 0, nullptr, nullptr, nullptr, nullptr, 0);
        PQpipelineSync(c.get());
        for (std::uint64_t i = 0; i != times; ++i) {
            check(adapt::pq_result(PQgetResult(c.get())));
            bench::check(!adapt::pq_result(PQgetResult(c.get())), "no end");
        }
        const adapt::pq_result sync(PQgetResult(c.get()));
        bench::check(PQresultStatus(sync.get()) == PGRES_PIPELINE_SYNC, "no synchronization");
    };
}

struct asynchronous {
    boost::asio::io_context io{1};
    adapt::pq_connection connection{io};
    std::uint64_t left = 0;

    asynchronous() {
        connection.async_connect(connection_string, [this](moor::error_code ec) {
            bench::check(!ec, connection.error_message().c_str());
        });
        io.run();
    }

    void run() {
        io.restart();
        io.run();
        bench::check(left == 0, "not all completed");
    }

    void one() {
        connection.async_exec("select 42", [this](moor::error_code, adapt::pq_result r) {
            check(r);
            if (--left != 0)
                one();
        });
    }
};

bench::work moor_one() {
    return [a = std::make_shared<asynchronous>()](std::uint64_t times) {
        a->left = times;
        a->one();
        a->run();
    };
}

bench::work moor_pipeline() {
    auto a = std::make_shared<asynchronous>();
    bench::check(PQenterPipelineMode(a->connection.native_handle()) == 1, "no pipeline");
    return [a](std::uint64_t times) {
        a->left = times + 1;
        for (std::uint64_t i = 0; i != times; ++i)
            a->connection.async_exec("select 42", [&](moor::error_code, adapt::pq_result r) {
                check(r);
                --a->left;
            });
        a->connection.async_pipeline_sync([&](moor::error_code ec) {
            bench::check(!ec, "no synchronization");
            --a->left;
        });
        a->run();
    };
}

} // namespace

int main(int argc, char** argv) {
    return bench::main_of({{"one", "libpq", blocking_one, 10},
                           {"one", "moor", moor_one, 10},
                           {"pipeline", "libpq", blocking_pipeline, pipeline},
                           {"pipeline", "moor", moor_pipeline, pipeline}},
                          argc, argv);
}
