//
// sound.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Plays a tone of three seconds with ALSA, and shows with a timer beside it how much was played;
// without a thread. On ALSA's null device, which needs no sound card, and no time:
//
//     example/run.sh sound
//
// On a sound card:
//
//     example/run.sh sound default
//
// doc/adapt-alsa.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/alsa.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <tuple>
#include <vector>

#include <alsa/asoundlib.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;
using namespace std::chrono_literals;

namespace {

constexpr unsigned rate = 48000;
constexpr std::size_t length = 3 * rate;

void check(int result) {
    if (result < 0)
        throw boost::system::system_error(adapt::alsa_error_code(result), "ALSA");
}

//[open
/// Opens a PCM for one channel of 16 bits.
adapt::alsa_ptr<snd_pcm_t> open_to_play(const char* name) {
    snd_pcm_t* opened = nullptr;
    check(snd_pcm_open(&opened, name, SND_PCM_STREAM_PLAYBACK, SND_PCM_NONBLOCK));
    adapt::alsa_ptr<snd_pcm_t> pcm(opened);
    check(snd_pcm_set_params(opened, SND_PCM_FORMAT_S16, SND_PCM_ACCESS_RW_INTERLEAVED, 1, rate, 1,
                             100'000)); // microseconds in the buffer
    return pcm;
}
//]

/// A tone, from one frame to another.
std::vector<std::int16_t> tone(std::size_t first, std::size_t last) {
    std::vector<std::int16_t> samples;
    for (; first != last; ++first)
        samples.push_back(static_cast<std::int16_t>(
            8000 * std::sin(2 * 3.14159265 * 440 * static_cast<double>(first) / rate)));
    return samples;
}

//[play
/// Plays a tone of three seconds.
asio::awaitable<void> play(adapt::alsa_pcm& pcm, std::size_t& played) {
    while (played != length) {
        const auto samples = tone(played, std::min<std::size_t>(played + rate / 10, length));
        auto [ec, frames] =
            co_await pcm.async_write(samples.data(), samples.size(), asio::as_tuple(use_awaitable));
        played += frames;
        if (ec == boost::system::errc::broken_pipe) // too late: the buffer was empty
            check(snd_pcm_recover(pcm.native_handle(), -EPIPE, 1));
        else if (ec)
            throw boost::system::system_error(ec);
    }
    co_await pcm.async_drain(use_awaitable);
}
//]

/// Shows how much was played, until it is cancelled.
asio::awaitable<void> show(asio::steady_timer& timer, const std::size_t& played) {
    for (moor::error_code ec; !ec;) {
        std::cout << played << " frames" << std::endl;
        timer.expires_after(500ms);
        std::tie(ec) = co_await timer.async_wait(asio::as_tuple(use_awaitable));
    }
}

} // namespace

int main(int argc, char** argv) {
    try {
        asio::io_context io;
        adapt::alsa_pcm pcm(io, open_to_play(argc > 1 ? argv[1] : "null"));
        asio::steady_timer timer(io);
        std::size_t played = 0;
        std::exception_ptr failure;
        co_spawn(io, show(timer, played), asio::detached);
        co_spawn(io, play(pcm, played), [&](std::exception_ptr p) {
            failure = p;
            timer.cancel();
        });
        io.run();
        if (failure)
            std::rethrow_exception(failure);
        std::cout << played << " frames, drained" << std::endl;
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
