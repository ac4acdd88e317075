// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

'use strict'

module.exports = (html) => html && String(html).replace(/<[^>]*>/g, '')
