// Requests by Go's client. `client.go URL KEY` prints a line for each: its name, a tab, the status.
package main

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

var base, key = os.Args[1], os.Args[2]

const path = "/webhooks/email-marketing/click"

func click(name string) string {
	noise := ""
	if strings.Contains(name, "large") {
		noise = `,"noise":"` + strings.Repeat("x", 100_000) + `"`
	}
	return `{"campid":"` + name + `"` + noise + `}`
}

func send(name string, client *http.Client, target string, body io.Reader, change func(*http.Request)) {
	request, err := http.NewRequest("POST", base+target, body)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	change(request)
	answer, err := client.Do(request)
	if err != nil {
		fmt.Printf("%s\t%v\n", name, err)
		return
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	fmt.Printf("%s\t%d\n", name, answer.StatusCode)
}

func main() {
	client := &http.Client{Timeout: time.Minute}
	none := func(*http.Request) {}
	text := func(name string) io.Reader { return strings.NewReader(click(name)) }
	// Its length is not known.
	pieces := func(name string) io.Reader { return io.MultiReader(text(name)) }

	send("Go: a text", client, path, text("Go: a text"), none)
	send("Go: a reader", client, path, pieces("Go: a reader"), none)
	send("Go: large, expects 100", client, path, text("Go: large, expects 100"), func(r *http.Request) {
		r.Header.Set("Expect", "100-continue")
	})
	send("Go: trailers", client, path, pieces("Go: trailers"), func(r *http.Request) {
		r.Trailer = http.Header{"X-Checksum": []string{"7"}}
	})
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	io.WriteString(writer, click("Go: gzip"))
	writer.Close()
	send("Go: gzip", client, path, &packed, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") })
	packed.Reset()
	deflate := zlib.NewWriter(&packed)
	io.WriteString(deflate, click("Go: zlib"))
	deflate.Close()
	send("Go: zlib", client, path, &packed, func(r *http.Request) { r.Header.Set("Content-Encoding", "deflate") })
	send("Go: a slash at the end", client, path+"/", text("Go: a slash at the end"), none)
	send("Go: user and password", client, "/basic", text("Go: user and password"), func(r *http.Request) {
		r.SetBasicAuth("user", "a-password-of-the-tests")
	})
	form := url.Values{"campid": {"Go: a form"}}.Encode()
	send("Go: a form", client, "/form", strings.NewReader(form), none)

	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	two := &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: time.Minute}
	send("Go: HTTP/2", two, path, text("Go: HTTP/2"), none)
}
