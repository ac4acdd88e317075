// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Whole programs of the kind that people write with posix::stream_descriptor. Each is a template
// over the stream, and runs with Asio's own and with Moor's: nothing but the alias changes. What
// they say is shown by --log_level=message, and in doc/programs.adoc.
//
// Here: programs at a terminal.

#include "support/programs.hpp"

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

BOOST_AUTO_TEST_SUITE(programs)

namespace asio = boost::asio;
using test::context_fixture;
using test::duplicate;
using test::end_key;
using test::eof;
using test::error_code;
using test::person;
using test::terminal_gone;
using test::terminal_streams;

// ---- the chat client ----------------------------------------------------------------------------

namespace chat {

using asio::ip::tcp;

/// A message is its length in two bytes, then its text.
constexpr std::size_t max_text = 80;
using head = std::array<unsigned char, 2>;

head head_of(const std::string& text) {
    return {static_cast<unsigned char>(text.size() / 256),
            static_cast<unsigned char>(text.size() % 256)};
}
std::size_t length(const head& h) { return std::size_t{h[0]} * 256 + h[1]; }

/// Tells everybody what anybody says.
class server {
public:
    explicit server(asio::io_context& io)
        : acceptor_(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
        accept();
    }

    tcp::endpoint endpoint() const { return acceptor_.local_endpoint(); }
    const std::vector<std::string>& said() const { return said_; }
    std::size_t present() const { return guests_.size(); }
    void stop() {
        acceptor_.close();
        for (auto& g : guests_)
            g->socket.close();
    }

private:
    struct guest {
        explicit guest(tcp::socket s) : socket(std::move(s)) {}
        tcp::socket socket;
        head header{};
        std::string text;
    };
    using guest_ptr = std::shared_ptr<guest>;

    void accept() {
        acceptor_.async_accept([this](error_code ec, tcp::socket s) {
            if (ec)
                return;
            guests_.push_back(std::make_shared<guest>(std::move(s)));
            listen_to(guests_.back());
            accept();
        });
    }
    void listen_to(guest_ptr g) {
        asio::async_read(g->socket, asio::buffer(g->header), [this, g](error_code ec, std::size_t) {
            if (ec)
                return remove(g);
            g->text.resize(length(g->header));
            asio::async_read(g->socket, asio::buffer(g->text),
                             [this, g](error_code e, std::size_t) {
                                 if (e)
                                     return remove(g);
                                 said_.push_back(g->text);
                                 for (auto& other : guests_)
                                     tell(*other, g->text);
                                 listen_to(g);
                             });
        });
    }
    static void tell(guest& g, const std::string& text) {
        head h = head_of(text);
        std::array<asio::const_buffer, 2> message{asio::buffer(h), asio::buffer(text)};
        asio::write(g.socket, message);
    }
    void remove(const guest_ptr& g) {
        guests_.erase(std::remove(guests_.begin(), guests_.end(), g), guests_.end());
    }

    tcp::acceptor acceptor_;
    std::vector<guest_ptr> guests_;
    std::vector<std::string> said_;
};

/// Lines from the input go to the server, messages from the server to the output.
template <class Stream>
class client {
public:
    client(asio::io_context& io, tcp::endpoint server, int in, int out)
        : socket_(io), input_(io, in), output_(io, out) {
        socket_.async_connect(server, [this](error_code ec) {
            if (ec)
                return close();
            read_message();
            read_line();
        });
    }

    /// The end of the input, or of the server.
    const error_code& why() const { return why_; }

private:
    void read_message() {
        asio::async_read(socket_, asio::buffer(header_), [this](error_code ec, std::size_t) {
            if (ec)
                return close(ec);
            text_.resize(length(header_));
            asio::async_read(socket_, asio::buffer(text_), [this](error_code e, std::size_t) {
                if (e)
                    return close(e);
                print();
            });
        });
    }
    void print() {
        static const char newline[] = {'\n'};
        std::array<asio::const_buffer, 2> line{asio::buffer(text_), asio::buffer(newline)};
        asio::async_write(output_, line, [this](error_code ec, std::size_t) {
            if (ec)
                return close(ec);
            read_message();
        });
    }
    void read_line() {
        asio::async_read_until(input_, asio::dynamic_buffer(typed_, max_text), '\n',
                               [this](error_code ec, std::size_t n) {
                                   if (!ec)
                                       send(n, 1);
                                   else if (ec == asio::error::not_found) // a very long line
                                       send(typed_.size(), 0);
                                   else
                                       close(ec);
                               });
    }
    void send(std::size_t n, std::size_t newline) {
        line_ = typed_.substr(0, n - newline);
        typed_.erase(0, n);
        sent_header_ = head_of(line_);
        std::array<asio::const_buffer, 2> message{asio::buffer(sent_header_), asio::buffer(line_)};
        asio::async_write(socket_, message, [this](error_code ec, std::size_t) {
            if (ec)
                return close(ec);
            read_line();
        });
    }
    void close(error_code why = error_code()) {
        if (!why_)
            why_ = why;
        error_code ignored;
        socket_.close(ignored);
        input_.close(ignored);
        output_.close(ignored);
    }

    tcp::socket socket_;
    Stream input_;
    Stream output_;
    head header_{};
    std::string text_;
    std::string typed_;
    head sent_header_{};
    std::string line_;
    error_code why_;
};

/// A terminal with the client running in it, and somebody in front of it.
template <class Stream>
struct seat {
    seat(asio::io_context& io, const server& s) : seat(io, s, test::make_pty()) {}
    seat(asio::io_context& io, const server& s, test::fd_pair pty)
        : sitter(io, std::move(pty.a)),
          program(io, s.endpoint(), duplicate(pty.b), duplicate(pty.b)) {}

    bool sees(const std::string& s) const { return sitter.screen().find(s) != std::string::npos; }

    person<Stream> sitter;
    client<Stream> program;
};

} // namespace chat

BOOST_AUTO_TEST_CASE_TEMPLATE(two_people_chat_at_their_terminals, Stream, terminal_streams) {
    context_fixture context;
    asio::io_context& io = context.io;
    chat::server server(io);
    chat::seat<Stream> ann(io, server);
    chat::seat<Stream> bob(io, server);
    test::run_until(io, [&] { return server.present() == 2; });

    // The terminal echoes what is typed; then it comes from the server, to both.
    ann.sitter.types("hello\n");
    test::run_until(io, [&] { return ann.sees("hello\r\nhello\r\n") && bob.sees("hello\r\n"); });
    bob.sitter.types("hi ann\n");
    test::run_until(io, [&] { return bob.sees("hi ann\r\nhi ann\r\n") && ann.sees("hi ann\r\n"); });
    ann.sitter.types("bye\n");
    test::run_until(io, [&] { return ann.sees("bye\r\nbye\r\n") && bob.sees("bye\r\n"); });

    // The one closes the input, the other the terminal.
    ann.sitter.types(end_key);
    test::run_until(io, [&] { return server.present() == 1; });
    BOOST_TEST((ann.program.why() == eof));
    test::run_until(io, [&] { return bool(ann.sitter.end()); });
    BOOST_TEST((ann.sitter.end() == terminal_gone));
    bob.sitter.leaves();
    test::run_until(io, [&] { return server.present() == 0; });
    BOOST_TEST((bob.program.why() == eof || bob.program.why() == terminal_gone));

    BOOST_TEST(ann.sitter.screen() == "hello\r\nhello\r\nhi ann\r\nbye\r\nbye\r\n");
    BOOST_TEST(bob.sitter.screen() == "hello\r\nhi ann\r\nhi ann\r\nbye\r\n");
    BOOST_TEST(server.said() == (std::vector<std::string>{"hello", "hi ann", "bye"}),
               boost::test_tools::per_element());
    BOOST_TEST_MESSAGE("on the screen of ann:\n" << ann.sitter.screen());
    BOOST_TEST_MESSAGE("on the screen of bob:\n" << bob.sitter.screen());
    server.stop();
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(lines_that_are_pasted_at_once_are_all_said, Stream,
                              terminal_streams) {
    context_fixture context;
    asio::io_context& io = context.io;
    chat::server server(io);
    chat::seat<Stream> ann(io, server);
    // Before the client is connected, too.
    std::string pasted;
    std::vector<std::string> lines;
    for (int i = 0; i != 40; ++i) {
        lines.push_back("line " + std::to_string(i));
        pasted += lines.back() + '\n';
    }
    // Longer than a message: it is sent in pieces.
    pasted += std::string(chat::max_text, 'a') + std::string(chat::max_text, 'b') + "c\n";
    lines.insert(lines.end(),
                 {std::string(chat::max_text, 'a'), std::string(chat::max_text, 'b'), "c"});
    ann.sitter.types(pasted);
    test::run_until(io, [&] { return server.said().size() == lines.size(); });
    BOOST_TEST(server.said() == lines, boost::test_tools::per_element());
    BOOST_TEST_MESSAGE("the server has heard " << server.said().size() << " messages");
    ann.sitter.types(end_key);
    test::run_until(io, [&] { return server.present() == 0; });
    server.stop();
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_chat_client_ends_when_the_server_does, Stream, terminal_streams) {
    context_fixture context;
    asio::io_context& io = context.io;
    chat::server server(io);
    chat::seat<Stream> ann(io, server);
    ann.sitter.types("anybody?\n");
    test::run_until(io, [&] { return ann.sees("anybody?\r\nanybody?\r\n"); });
    server.stop();
    // The client waits for its input all the while: closing the descriptor ends that.
    test::run_all(io);
    BOOST_TEST((ann.program.why() == eof));
    BOOST_TEST((ann.sitter.end() == terminal_gone));
    BOOST_TEST_MESSAGE("the client: " << ann.program.why().message()
                                      << "; its terminal: " << ann.sitter.end().message());
}

// ---- the line reader behind an interface --------------------------------------------------------

namespace lines {

using signature = void(error_code, std::string);

/// What knows how to read a line. Its users need not know how.
class line_reader {
public:
    virtual ~line_reader() = default;

    template <class CompletionToken>
    auto async_read_line(std::string prompt, CompletionToken&& token) {
        return asio::async_initiate<CompletionToken, signature>(
            [this](auto handler, std::string p) {
                async_read_line_impl(std::move(p), std::move(handler));
            },
            token, std::move(prompt));
    }

private:
    virtual void async_read_line_impl(std::string prompt,
                                      asio::any_completion_handler<signature> handler) = 0;
};

/// From a terminal.
template <class Stream>
class terminal_line_reader final : public line_reader {
public:
    terminal_line_reader(asio::io_context& io, int in, int out) : in_(io, in), out_(io, out) {}

private:
    struct implementation {
        terminal_line_reader* reader;
        enum { starting, prompting, reading } state = starting;

        template <class Self>
        void operator()(Self& self, error_code ec = error_code(), std::size_t n = 0) {
            if (ec)
                return self.complete(ec, std::string());
            switch (state) {
            case starting:
                state = prompting;
                asio::async_write(reader->out_, asio::buffer(reader->prompt_), std::move(self));
                break;
            case prompting:
                state = reading;
                asio::async_read_until(reader->in_, asio::dynamic_buffer(reader->typed_), '\n',
                                       std::move(self));
                break;
            case reading:
                std::string line = reader->typed_.substr(0, n - 1);
                reader->typed_.erase(0, n);
                self.complete(ec, std::move(line));
                break;
            }
        }
    };

    void async_read_line_impl(std::string prompt,
                              asio::any_completion_handler<signature> handler) override {
        prompt_ = std::move(prompt);
        asio::async_compose<asio::any_completion_handler<signature>, signature>(
            implementation{this}, handler, in_, out_);
    }

    Stream in_;
    Stream out_;
    std::string prompt_;
    std::string typed_;
};

/// The program, which has no template and sees no terminal: asks until there is no answer.
class questionnaire {
public:
    explicit questionnaire(line_reader& reader) : reader_(reader) { ask(); }

    std::vector<std::string> answers;
    error_code end;

private:
    void ask() {
        reader_.async_read_line("answer " + std::to_string(answers.size()) + "? ",
                                [this](error_code ec, std::string line) {
                                    end = ec;
                                    if (ec)
                                        return;
                                    answers.push_back(std::move(line));
                                    ask();
                                });
    }

    line_reader& reader_;
};

} // namespace lines

BOOST_AUTO_TEST_CASE_TEMPLATE(lines_are_read_behind_an_interface, Stream, terminal_streams) {
    context_fixture context;
    asio::io_context& io = context.io;
    test::fd_pair tty = test::make_pty();
    person<Stream> ann(io, std::move(tty.a));
    {
        lines::terminal_line_reader<Stream> reader(io, duplicate(tty.b), duplicate(tty.b));
        lines::questionnaire program(reader);
        // Each after its prompt, so that the screen can show nothing else; then two at once.
        auto sees = [&](const std::string& s) {
            return [&ann, s] { return ann.screen().find(s) != std::string::npos; };
        };
        test::run_until(io, sees("answer 0? "));
        ann.types("forty-two\n");
        test::run_until(io, sees("answer 1? "));
        ann.types("\n");
        test::run_until(io, sees("answer 2? "));
        BOOST_TEST(ann.screen() == "answer 0? forty-two\r\nanswer 1? \r\nanswer 2? ");
        ann.types("one\ntwo\n");
        test::run_until(io, sees("answer 4? "));
        ann.types(end_key);
        test::run_until(io, [&] { return bool(program.end); });
        BOOST_TEST((program.end == eof));
        BOOST_TEST(program.answers == (std::vector<std::string>{"forty-two", "", "one", "two"}),
                   boost::test_tools::per_element());
        BOOST_TEST_MESSAGE("on the screen:\n" << ann.screen());
        tty.b.close();
    }
    test::run_all(io);
    BOOST_TEST((ann.end() == terminal_gone));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_line_is_cancelled_behind_the_interface, Stream, terminal_streams) {
    context_fixture context;
    asio::io_context& io = context.io;
    test::fd_pair tty = test::make_pty();
    lines::terminal_line_reader<Stream> typed(io, duplicate(tty.b), duplicate(tty.b));
    lines::line_reader& reader = typed;
    asio::cancellation_signal cancel;
    int over = 0;
    reader.async_read_line("? ", asio::bind_cancellation_slot(
                                     cancel.slot(), [&](error_code ec, const std::string& line) {
                                         BOOST_TEST((ec == test::aborted));
                                         BOOST_TEST(line.empty());
                                         ++over;
                                     }));
    test::run_ready(io);
    BOOST_TEST(over == 0);
    cancel.emit(asio::cancellation_type::terminal);
    test::run_all(io);
    BOOST_TEST(over == 1);
    // It can be used again.
    test::put(tty.a, "here\n");
    reader.async_read_line("? ", [&](error_code ec, const std::string& line) {
        BOOST_TEST(!ec);
        BOOST_TEST(line == "here");
        BOOST_TEST_MESSAGE("the line after the one that was cancelled: " << line);
        ++over;
    });
    test::run_all(io);
    BOOST_TEST(over == 2);
}

BOOST_AUTO_TEST_SUITE_END()
