#!/bin/sh
# symbols.sh LIBRARY [NM]: whether the kernels keep what they define to themselves.
#
# Of a weak symbol the linker keeps one copy for all objects. A kernel's may hold instructions that
# the processor lacks, so that only those in the namespace of its own build are allowed, where
# nobody else has one. The reference to the exceptions' personality is no code.
set -eu
"${2:-nm}" -C "$1" | awk '
    function finish(k) {
        if (build != "") {
            kernels++
            for (k = 1; k <= weak; k++)
                if (index(symbols[k], "unrolled::" build "::") == 0) {
                    print "kernels of " build ": " symbols[k]
                    leaked++
                }
        }
        build = ""
        weak = 0
    }
    /^[^ ]+\.o:$/ { finish() }
    $2 ~ /^[A-Z]$/ && $3 ~ /^unrolled::[a-z0-9]+::build$/ && NF == 3 {
        split($3, part, "::")
        build = part[2]
    }
    $2 ~ /^[WVu]$/ && $3 != "DW.ref.__gxx_personality_v0" { symbols[++weak] = $0 }
    END {
        finish()
        if (kernels == 0) print "no kernels in there"
        exit leaked > 0 || kernels == 0
    }'
