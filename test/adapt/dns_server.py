#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# A DNS server for the tests, on UDP and TCP of 127.0.0.1:
#
#     dns_server.py PORT READY      creates the file READY once it answers; ends with 3 if the port is taken
#
# The name says what the server does (".test" is omitted here):
#
#     four, six, both           A records, AAAA records, or both
#     n1234                     one A record: 10.0.4.210
#     alias                     CNAME of four
#     text, mail, _sip._tcp     TXT, MX, SRV
#     empty                     exists, without records
#     fails, refuses            SERVFAIL, REFUSED
#     drop*                     no answer
#     once*                     no answer to the first query of this name and type, then n1
#     later*                    the answer (n1) is held back until "release.control" is asked for
#     delay*                    the answer (n1) comes after 50 ms
#     long*                     TXT of 4,000 bytes, for which UDP does not suffice
#     cut*                      as long, and TCP is closed without an answer
#     half*                     as long, and TCP is ended, and then reset, when "release.control" is asked for
#     garbage                   bytes that are no answer
#     foreign                   first an answer with another id, then n1
#
# All others do not exist (NXDOMAIN). "7.2.0.192.in-addr.arpa" has the name seven, "10.2.0.192.in-addr.arpa" is an alias
# of a name without records, and "11.2.0.192.in-addr.arpa" gets no answer. TXT of "count.control" is the number of
# queries so far by UDP and by TCP, without those for control.

import asyncio
import os
import socket
import struct
import sys

A, CNAME, PTR, MX, TXT, AAAA, SRV, ANY = 1, 5, 12, 15, 16, 28, 33, 255
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def text(strings):
    return b"".join(bytes([len(s)]) + s for s in strings)


def number(n):
    return bytes([10, n >> 16 & 255, n >> 8 & 255, n & 255])


def loopback6(last):
    return bytes(15) + bytes([last])


RECORDS = {
    "four": [(A, number(1)), (A, number(2))],
    "six": [(AAAA, loopback6(1))],
    "both": [(A, bytes([127, 0, 0, 1])), (AAAA, loopback6(1))],
    "alias": [(CNAME, wire("four.test")), (A, number(1)), (A, number(2))],
    "text": [(TXT, text([b"one", b"two"])), (TXT, text([b"three"]))],
    "mail": [(MX, struct.pack("!H", 10) + wire("mx1.test")), (MX, struct.pack("!H", 20) + wire("mx2.test"))],
    "_sip._tcp": [(SRV, struct.pack("!HHH", 1, 5, 5060) + wire("four.test")),
                  (SRV, struct.pack("!HHH", 2, 0, 5061) + wire("six.test"))],
    "empty": [],
}
LONG = [(TXT, text([b"x" * 99] * 40))]
CODES = {"fails": SERVFAIL, "refuses": REFUSED}


class Server:
    def __init__(self):
        self.counts = {"udp": 0, "tcp": 0}
        self.seen = set()
        self.held = []

    def answer(self, query, transport):
        """The answers to a query, and how to send them: None is at once, a number is later, "hold" is on command."""
        try:
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            kind, _ = struct.unpack("!HH", query[at + 1:at + 5])
        except (IndexError, struct.error, UnicodeDecodeError):
            return [], None
        question = query[12:at + 5]
        name = ".".join(labels)
        if name == "release.control.test":
            held, self.held = self.held, []
            for send in held:
                send()
            # Behind what the event loop has to do to reset connections.
            return [self.message(query, question, 0, [(TXT, text([str(len(held)).encode()]))], kind)], 0
        if name == "count.control.test":
            counts = [str(self.counts[t]).encode() for t in ("udp", "tcp")]
            return [self.message(query, question, 0, [(TXT, text(counts))], kind)], None
        self.counts[transport] += 1

        first = name[:-len(".test")] if name.endswith(".test") else name
        when, code, records = None, 0, RECORDS.get(first)
        one = [(A, number(1))]
        if first.startswith("drop"):
            return [], None
        if first.startswith("once"):
            if (first, kind) not in self.seen:
                self.seen.add((first, kind))
                return [], None
            records = one
        elif first.startswith("later"):
            when, records = "hold", one
        elif first.startswith("delay"):
            when, records = 0.05, one
        elif first.startswith(("cut", "half")):
            records = LONG
            if transport == "tcp":
                return None, None
        elif first.startswith("long"):
            records = LONG
        elif first == "garbage":
            return [query[:2] + b"\x81\x80" + b"\0\1\0\7\0\0\0\0" + question + b"\xc0\xff\xff\xff\xff"], None
        elif first == "foreign":
            other = bytes([query[0] ^ 255]) + query[1:]
            return [self.message(other, question, 0, [(A, number(99))], kind),
                    self.message(query, question, 0, one, kind)], None
        elif first.startswith("n") and first[1:].isdigit():
            records = [(A, number(int(first[1:])))]
        elif name == "7.2.0.192.in-addr.arpa":
            records = [(PTR, wire("seven.test"))]
        elif name == "10.2.0.192.in-addr.arpa":
            records = [(CNAME, wire("empty.test"))]
        elif name == "11.2.0.192.in-addr.arpa":
            return [], None
        elif first in CODES:
            code, records = CODES[first], []
        elif records is None:
            code, records = NXDOMAIN, []
        message = self.message(query, question, code, records, kind)
        if transport == "udp" and len(message) > 512:
            message = self.message(query, question, code, [], kind, truncated=True)
        return [message], when

    @staticmethod
    def message(query, question, code, records, kind, truncated=False):
        chosen = [r for r in records if kind == ANY or r[0] in (kind, CNAME)]
        flags = 0x8180 | code | (0x0200 if truncated else 0)
        out = query[:2] + struct.pack("!HHHHH", flags, 1, len(chosen), 0, 0) + question
        owner = b"\xc0\x0c"
        for record, data in chosen:
            out += owner + struct.pack("!HHIH", record, 1, 60, len(data)) + data
            if record == CNAME:
                owner = data
        return out

    def reply(self, messages, when, send):
        def send_all():
            for message in messages:
                send(message)
        if when is None:
            send_all()
        elif when == "hold":
            self.held.append(send_all)
        else:
            asyncio.get_running_loop().call_later(when, send_all)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server):
        self.server = server

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        messages, when = self.server.answer(data, "udp")
        self.server.reply(messages, when, lambda message: self.transport.sendto(message, address))


def reset(writer):
    if writer.is_closing():
        return
    try:
        writer.write_eof()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:  # the client was faster
        pass
    writer.transport.abort()


async def serve_stream(server, reader, writer):
    def send(message):
        if not writer.is_closing():
            writer.write(struct.pack("!H", len(message)) + message)
    try:
        while True:
            size = await reader.readexactly(2)
            query = await reader.readexactly(struct.unpack("!H", size)[0])
            messages, when = server.answer(query, "tcp")
            if messages is None:
                if b"half" not in query:
                    break
                server.held.append(lambda: reset(writer))
                continue
            server.reply(messages, when, send)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    port, ready = int(sys.argv[1]), sys.argv[2]
    server = Server()
    loop = asyncio.get_running_loop()
    try:
        await loop.create_datagram_endpoint(lambda: Datagrams(server), local_addr=("127.0.0.1", port))
        streams = await asyncio.start_server(lambda r, w: serve_stream(server, r, w), "127.0.0.1", port)
    except OSError:
        sys.exit(3)
    with open(ready, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    async with streams:
        await streams.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
