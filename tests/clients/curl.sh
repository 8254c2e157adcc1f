#!/usr/bin/env bash
# Requests by curl and wget. `curl.sh URL KEY` prints a line for each: its name, a tab, the status.
# `curl.sh URL KEY PROXY` makes those that go through a proxy, whose name begins theirs.
set -uo pipefail
base=$1 key=$2 proxy=${3-}
path=/webhooks/email-marketing/click
auth=(--header "Authorization: Bearer $key")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Prints the click of this name to a file; a large one with 100,000 bytes of noise.
click() {
    local noise=
    [[ $1 != *large* ]] || noise=",\"noise\":\"$(printf 'x%.0s' {1..100000})\""
    printf '{"campid":"%s"%s}' "$1" "$noise" > "$folder/click"
}

# post NAME TARGET ARGUMENTS...: by curl, with the click of this name unless it has data of its own.
post() {
    local name=$1 target=$2
    shift 2
    click "$name"
    [[ " $* " == *' --data'* || " $* " == *' --json'* ]] || set -- "$@" --data-binary "@$folder/click"
    local status
    status=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' --max-time 60 \
        --path-as-is "${auth[@]}" "$@" "$base$target")
    printf '%s\t%s\n' "$name" "$status"
}

# As others compress; the file is then sent.
packed() {
    click "$1"
    python3 -c '
import gzip, sys, zlib
pack = gzip.compress if sys.argv[1] == "gzip" else zlib.compress
sys.stdout.buffer.write(pack(sys.stdin.buffer.read()))' "$2" < "$folder/click" > "$folder/packed"
}

if [ -n "$proxy" ]; then
    post "$proxy: plain" $path --json @"$folder/click"
    post "$proxy: chunked" $path --header 'Transfer-Encoding: chunked'
    post "$proxy: HTTP/1.0" $path --http1.0
    post "$proxy: large, expects 100" $path --header 'Expect: 100-continue'
    packed "$proxy: gzip" gzip
    post "$proxy: gzip" $path --header 'Content-Encoding: gzip' --data-binary @"$folder/packed"
    post "$proxy: a slash at the end" $path/
    post "$proxy: two slashes" /$path
    post "$proxy: a needless %2D" /webhooks/email%2Dmarketing/click
    post "$proxy: a query" "$path?source=a%20b"
    exit
fi

post 'curl: --data' $path --data @"$folder/click"
click 'curl: --json' && post 'curl: --json' $path --json @"$folder/click"
post 'curl: no Content-Type' $path --header 'Content-Type:'
post 'curl: chunked' $path --header 'Transfer-Encoding: chunked'
post 'curl: large, expects 100' $path --header 'Expect: 100-continue'
post 'curl: HTTP/1.0' $path --http1.0
post 'curl: HTTP/2' $path --http2-prior-knowledge
post 'curl: upgrade to HTTP/2' $path --http2
packed 'curl: gzip' gzip
post 'curl: gzip' $path --header 'Content-Encoding: gzip' --data-binary @"$folder/packed"
packed 'curl: deflate' deflate
post 'curl: deflate' $path --header 'Content-Encoding: deflate' --data-binary @"$folder/packed"
post 'curl: an encoding that is none' $path --header 'Content-Encoding: UTF-8'
# {"campid":"7"} by brotli.
printf '\x8f\x06\x80{"campid":"7"}\x03' > "$folder/packed"
post 'curl: brotli' $path --header 'Content-Encoding: br' --data-binary @"$folder/packed"
post 'curl: a slash at the end' $path/
post 'curl: two slashes' /$path
post 'curl: dots' /x/../.$path
post 'curl: a needless %2d' /webhooks/email%2dmarketing/click
post 'curl: everything encoded' /%77ebhooks/%65mail-marketing/%63lick
post 'curl: a query' "$path?source=a%20b&x"
post 'curl: a whole URL as target' / --request-target "http://hooks.example.com$path"
post 'curl: another method in a header' $path --header 'X-HTTP-Method-Override: PUT'
bearer=("${auth[@]}") auth=(--user user:a-password-of-the-tests)
post 'curl: user and password' /basic
auth=("${bearer[@]}")
post 'curl: a form' /form --data-urlencode 'campid=curl: a form'
click 'curl: BOM' && { printf '\xef\xbb\xbf'; cat "$folder/click"; } > "$folder/packed"
post 'curl: BOM' $path --data-binary @"$folder/packed"
# The bridge as curl's proxy: the target is a whole URL.
bridge=$base base=http://hooks.example.com
post 'curl: as through a proxy' $path --proxy "$bridge"
base=$bridge

# By wget, which prints the head of the answer.
get() {
    local name=$1 target=$2
    shift 2
    click "$name"
    local status
    status=$(wget --quiet --server-response --output-document=/dev/null --timeout=60 --tries=1 \
        --header "Authorization: Bearer $key" "$@" "$base$target" 2>&1 | awk '/HTTP\//{print $2}')
    printf '%s\t%s\n' "$name" "$status"
}
get 'wget: --post-file' $path --post-file="$folder/click"
get 'wget: --post-data' $path/ --post-data='{"campid":"wget: --post-data"}'
get 'wget: JSON' $path --header 'Content-Type: application/json' --post-file="$folder/click"
