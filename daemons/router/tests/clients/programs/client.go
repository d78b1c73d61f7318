// Go's net/http. Arguments: URL of the app, URL of an unknown host, names of cases.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"time"
)

const large = 32 << 20

var (
	app, unknown = os.Args[1], os.Args[2]
	client       = &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{ExpectContinueTimeout: 20 * time.Second},
	}
	megabyte = func() []byte {
		all := make([]byte, 0, 1<<20)
		for number := uint32(0); number < 1<<18; number++ {
			all = binary.BigEndian.AppendUint32(all, number)
		}
		return all
	}()
	cases = map[string]func() error{
		"keep-alive":        keepAlive,
		"length":            length,
		"chunked":           chunked,
		"trailers":          trailers,
		"head":              head,
		"no-content":        noContent,
		"not-modified":      notModified,
		"early-answer":      func() error { return early("/large", io.LimitReader(zeros{}, large), large) },
		"early-answer-gone": func() error { return early("/large/gone", io.LimitReader(zeros{}, large), large) },
		"endless":           func() error { return early("/large", zeros{}, -1) },
		"endless-gone":      func() error { return early("/large/gone", zeros{}, -1) },
		"duplex":            duplex,
		"events":            events,
		"expect":            func() error { return expectContinue("/echo") },
		"expect-silent":     func() error { return expectContinue("/silent") },
		"expect-refused":    expectRefused,
		"hints":             hints,
		"unknown-host":      unknownHost,
		"websocket":         websocket,
	}
)

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(part []byte) (int, error) { return len(part), nil }

// counted counts what is read of a body.
type counted struct {
	io.Reader
	count int
}

func (body *counted) Read(part []byte) (int, error) {
	count, err := body.Reader.Read(part)
	body.count += count
	return count, err
}

func request(method, url string, body io.Reader) *http.Request {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	return request
}

func ask(request *http.Request) (*http.Response, []byte, error) {
	answer, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, body, err
}

// is says what an answer has to be.
func is(request *http.Request, status int, body string) (*http.Response, error) {
	answer, found, err := ask(request)
	if err == nil && (answer.StatusCode != status || string(found) != body) {
		err = fmt.Errorf("%s, %d bytes: %.100q", answer.Status, len(found), found)
	}
	return answer, err
}

func keepAlive() error {
	for number := 0; number < 20; number++ {
		if _, err := is(request("GET", fmt.Sprint(app, "/keep?", number), nil), 200, "kept"); err != nil {
			return err
		}
	}
	return nil
}

func length() error {
	_, err := is(request("POST", app+"/echo", bytes.NewReader(megabyte)), 200, string(megabyte))
	return err
}

func chunked() error {
	// A reader of unknown length.
	_, err := is(request("POST", app+"/echo", io.MultiReader(bytes.NewReader(megabyte))), 200, string(megabyte))
	return err
}

func trailers() error {
	answer, err := is(request("GET", app+"/trailers", nil), 200, "with trailers")
	if err == nil && answer.Trailer.Get("X-Sum") != "13" {
		err = fmt.Errorf("trailers %v", answer.Trailer)
	}
	return err
}

func head() error {
	answer, err := is(request("HEAD", app+"/head", nil), 200, "")
	if err == nil && answer.ContentLength != 1000 {
		err = fmt.Errorf("length %d", answer.ContentLength)
	}
	return err
}

func noContent() error {
	answer, err := is(request("GET", app+"/empty", nil), 204, "")
	if err == nil && (answer.Header.Get("X-Empty") != "yes" || answer.Header.Get("Content-Length") != "") {
		err = fmt.Errorf("headers %v", answer.Header)
	}
	return err
}

func notModified() error {
	request := request("GET", app+"/same", nil)
	request.Header.Set("If-None-Match", `"1"`)
	answer, err := is(request, 304, "")
	if err == nil && answer.Header.Get("ETag") != `"1"` {
		err = fmt.Errorf("headers %v", answer.Header)
	}
	return err
}

func early(path string, body io.Reader, length int64) error {
	request := request("POST", app+path, body)
	request.ContentLength = length
	_, err := is(request, 413, "too large")
	return err
}

// Sends sixteen megabytes and reads them back meanwhile.
func duplex() error {
	parts := make([]io.Reader, 16)
	for place := range parts {
		parts[place] = bytes.NewReader(megabyte)
	}
	_, err := is(request("POST", app+"/duplex", io.MultiReader(parts...)), 200, strings.Repeat(string(megabyte), 16))
	return err
}

func events() error {
	answer, err := client.Do(request("GET", app+"/events", nil))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	first := make([]byte, 11)
	if _, err := io.ReadFull(answer.Body, first); err != nil || string(first) != "data: one\n\n" {
		return fmt.Errorf("%q %v", first, err)
	}
	return nil
}

func expectContinue(path string) error {
	went := false
	request := request("POST", app+path, bytes.NewReader(megabyte))
	request.Header.Set("Expect", "100-continue")
	trace := &httptrace.ClientTrace{Got100Continue: func() { went = true }}
	_, err := is(request.WithContext(httptrace.WithClientTrace(context.Background(), trace)), 200, string(megabyte))
	if err == nil && !went {
		err = fmt.Errorf("nobody said 100")
	}
	return err
}

func expectRefused() error {
	body := &counted{Reader: bytes.NewReader(megabyte)}
	request := request("POST", app+"/large", body)
	request.Header.Set("Expect", "100-continue")
	request.ContentLength = int64(len(megabyte))
	_, err := is(request, 413, "too large")
	if err == nil && body.count > 0 {
		err = fmt.Errorf("%d bytes were sent unasked", body.count)
	}
	return err
}

func hints() error {
	hinted := ""
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		hinted = fmt.Sprint(code, header.Get("Link"))
		return nil
	}}
	request := request("GET", app+"/hints", nil)
	_, err := is(request.WithContext(httptrace.WithClientTrace(context.Background(), trace)), 200, "hinted")
	if err == nil && hinted != "103</style.css>; rel=preload" {
		err = fmt.Errorf("hints %q", hinted)
	}
	return err
}

func unknownHost() error {
	request := request("GET", unknown, nil)
	request.Header.Set("Accept", "application/json")
	answer, body, err := ask(request)
	if err == nil && (answer.StatusCode != 404 || answer.Header.Get("Content-Type") != "application/problem+json" ||
		!strings.Contains(string(body), `"urn:dinp:unknown-host"`)) {
		err = fmt.Errorf("%s %v %s", answer.Status, answer.Header, body)
	}
	return err
}

func websocket() error {
	request := request("GET", app+"/websocket", nil)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Sec-WebSocket-Version", "13")
	request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	// A client with a time limit wraps what could be written to.
	answer, err := client.Transport.RoundTrip(request)
	if err != nil {
		return err
	}
	stream, is := answer.Body.(io.ReadWriteCloser)
	if !is || answer.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return fmt.Errorf("%s %v", answer.Status, answer.Header)
	}
	defer stream.Close()
	if err := heard(stream, 0x81, []byte("welcome")); err != nil {
		return err
	}
	for _, frame := range []struct {
		first   byte
		content []byte
	}{{0x81, []byte("hello")}, {0x82, megabyte}, {0x89, []byte("ping")}, {0x88, []byte{3, 0xe8}}} {
		if err := say(stream, frame.first, frame.content); err != nil {
			return err
		}
		if err := heard(stream, frame.first, frame.content); err != nil {
			return err
		}
	}
	return nil
}

func say(stream io.Writer, first byte, content []byte) error {
	mask := make([]byte, 4)
	rand.Read(mask)
	frame := append(sized(first, content, 0x80), mask...)
	for place, one := range content {
		frame = append(frame, one^mask[place%4])
	}
	_, err := stream.Write(frame)
	return err
}

func heard(stream io.Reader, first byte, content []byte) error {
	wanted := append(sized(first, content, 0), content...)
	found := make([]byte, len(wanted))
	if _, err := io.ReadFull(stream, found); err != nil {
		return err
	}
	if !bytes.Equal(found, wanted) {
		return fmt.Errorf("%.50q instead of %.50q", found, wanted)
	}
	return nil
}

// sized gives the head of a frame, up to its mask.
func sized(first byte, content []byte, masked byte) []byte {
	if len(content) < 126 {
		return []byte{first, masked | byte(len(content))}
	}
	return binary.BigEndian.AppendUint64([]byte{first, masked | 127}, uint64(len(content)))
}

func main() {
	failed := false
	for _, name := range os.Args[3:] {
		if err := cases[name](); err != nil {
			failed = true
			fmt.Printf("bad %s: %v\n", name, err)
		} else {
			fmt.Println("ok", name)
		}
	}
	if failed {
		os.Exit(1)
	}
}
