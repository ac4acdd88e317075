// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for ALSA does: wait for a PCM that is always ready.

#include <moor/adapt/alsa.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    snd_pcm_t* opened = nullptr;
    if (snd_pcm_open(&opened, "null", SND_PCM_STREAM_PLAYBACK, SND_PCM_NONBLOCK) < 0)
        return 1;
    moor::adapt::alsa_pcm pcm(io, moor::adapt::alsa_ptr<snd_pcm_t>(opened));
    bool is_ready = false;
    pcm.async_wait(
        [&](moor::error_code ec, unsigned short events) { is_ready = !ec && (events & POLLOUT); });
    io.run();
    return is_ready ? 0 : 1;
}
