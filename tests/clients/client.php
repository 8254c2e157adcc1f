<?php
// Requests by PHP's curl and streams. `client.php URL KEY` prints a line for each: its name, a tab, the status.
[, $base, $key] = $argv;
$url = "$base/webhooks/email-marketing/click";
$auth = "Authorization: Bearer $key";
$json = 'Content-Type: application/json';

function click(string $name): string
{
    $noise = str_contains($name, 'large') ? ',"noise":"' . str_repeat('x', 100000) . '"' : '';
    return "{\"campid\":\"$name\"$noise}";
}

function say(string $name, int|string $status): void
{
    echo "$name\t$status\n";
}

function by_curl(string $name, array $options): void
{
    global $url, $auth, $json;
    $curl = curl_init($url);
    curl_setopt_array($curl, $options + [
        CURLOPT_POST => true, CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 60,
        CURLOPT_HTTPHEADER => [$auth, $json], CURLOPT_POSTFIELDS => click($name),
    ]);
    curl_exec($curl);
    say($name, curl_getinfo($curl, CURLINFO_RESPONSE_CODE));
}

by_curl('PHP curl: a text', []);
by_curl('PHP curl: without Content-Type', [CURLOPT_HTTPHEADER => [$auth]]);
by_curl('PHP curl: large, expects 100', [CURLOPT_HTTPHEADER => [$auth, $json, 'Expect: 100-continue']]);
by_curl('PHP curl: HTTP/1.0', [CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_0]);
by_curl('PHP curl: a slash at the end', [CURLOPT_URL => "$url/"]);
by_curl('PHP curl: gzip', [
    CURLOPT_HTTPHEADER => [$auth, $json, 'Content-Encoding: gzip'],
    CURLOPT_POSTFIELDS => gzencode(click('PHP curl: gzip')),
]);
by_curl('PHP curl: gzcompress', [
    CURLOPT_HTTPHEADER => [$auth, $json, 'Content-Encoding: deflate'],
    CURLOPT_POSTFIELDS => gzcompress(click('PHP curl: gzcompress')),
]);
by_curl('PHP curl: gzdeflate', [
    CURLOPT_HTTPHEADER => [$auth, $json, 'Content-Encoding: deflate'],
    CURLOPT_POSTFIELDS => gzdeflate(click('PHP curl: gzdeflate')),
]);
by_curl('PHP curl: a form', [
    CURLOPT_URL => "$base/form", CURLOPT_HTTPHEADER => [$auth],
    CURLOPT_POSTFIELDS => http_build_query(['campid' => 'PHP curl: a form']),
]);

function by_stream(string $name, string $target, array $options): void
{
    global $auth, $json;
    $context = stream_context_create(['http' => $options + [
        'method' => 'POST', 'header' => "$auth\r\n$json", 'content' => click($name),
        'timeout' => 60, 'ignore_errors' => true,
    ]]);
    file_get_contents($target, false, $context);
    say($name, explode(' ', $http_response_header[0])[1]);
}

by_stream('PHP stream: a text', $url, []);
by_stream('PHP stream: HTTP/1.0', $url, ['protocol_version' => 1.0]);
by_stream('PHP stream: two slashes', str_replace('/webhooks', '//webhooks', $url), []);
by_stream('PHP stream: user and password', "$base/basic", [
    'header' => 'Authorization: Basic ' . base64_encode('user:a-password-of-the-tests'),
]);
