//
// moor/detail/json_writer.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_JSON_WRITER_HPP
#define MOOR_DETAIL_JSON_WRITER_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

namespace moor {
namespace detail {

/// Writes a JSON text, for which linking with Boost.JSON would be too much to ask.
class json_writer {
public:
    void begin_object() { open('{'); }
    void end_object() { close('}'); }
    void begin_array() { open('['); }
    void end_array() { close(']'); }

    void key(const char* name) {
        separate();
        quote(name);
        text_ += ':';
        is_first_ = true; // its value needs no comma
    }
    template <class T>
    void member(const char* name, const T& v) {
        key(name);
        value(v);
    }

    void value(const std::string& v) {
        separate();
        quote(v);
    }
    void value(std::int64_t v) { raw(std::to_string(v)); }
    void value(std::uint64_t v) { raw(std::to_string(v)); }
    void value(bool v) { raw(v ? "true" : "false"); }
    void value(double v) {
        // In tenths: the program's locale may have a decimal comma.
        const auto tenths = static_cast<std::uint64_t>(std::llround(v * 10));
        raw(std::to_string(tenths / 10) + '.' + std::to_string(tenths % 10));
    }
    void null() { raw("null"); }

    std::string take() { return std::move(text_); }

private:
    void open(char c) {
        separate();
        text_ += c;
        is_first_ = true;
    }
    void close(char c) {
        text_ += c;
        is_first_ = false;
    }
    void raw(const std::string& v) {
        separate();
        text_ += v;
    }
    void separate() {
        if (!std::exchange(is_first_, false))
            text_ += ',';
    }

    /// A byte that is no part of a UTF-8 sequence becomes U+FFFD.
    void quote(const std::string& v) {
        text_ += '"';
        for (std::size_t i = 0; i < v.size();) {
            const auto c = static_cast<unsigned char>(v[i]);
            const std::size_t n = length_of_utf8(v, i);
            if (n == 0) {
                text_ += "\\ufffd";
            } else if (c < 0x20 || c == '"' || c == '\\') {
                char escape[8];
                std::snprintf(escape, sizeof(escape), "\\u%04x", unsigned{c});
                text_ += escape;
            } else {
                text_.append(v, i, n);
            }
            i += n == 0 ? 1 : n;
        }
        text_ += '"';
    }

    /// Zero: there is no valid sequence.
    static std::size_t length_of_utf8(const std::string& v, std::size_t i) {
        auto at = [&](std::size_t k) {
            return k < v.size() ? static_cast<unsigned char>(v[k]) : 0u;
        };
        const unsigned first = at(i);
        if (first < 0x80)
            return 1;
        const std::size_t n = first >= 0xc2 && first < 0xe0   ? 2
                              : first >= 0xe0 && first < 0xf0 ? 3
                              : first >= 0xf0 && first < 0xf5 ? 4
                                                              : 0;
        for (std::size_t k = 1; k < n; ++k)
            if ((at(i + k) & 0xc0) != 0x80)
                return 0;
        // Overlong ones, surrogates, and what is beyond U+10FFFF.
        const unsigned second = at(i + 1);
        if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
            (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
            return 0;
        return n;
    }

    std::string text_;
    bool is_first_ = true;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_JSON_WRITER_HPP
