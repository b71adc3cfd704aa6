package proxy_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// Recorded streams of real clients and of what a server said to them: under the policy
// never, and manual, every byte arrives as it was, both ways, however it is cut into
// writes. See test/record for how they were made.
func TestRecordedStreams(t *testing.T) {
	files, _ := filepath.Glob("testdata/streams/*.client")
	if len(files) < 8 {
		t.Fatalf("only %d recordings", len(files))
	}
	for _, policy := range []string{"never", "manual"} {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".client")
			t.Run(policy+"/"+name, func(t *testing.T) {
				t.Parallel()
				fromClient, _ := os.ReadFile(file)
				fromServer, _ := os.ReadFile(strings.TrimSuffix(file, ".client") + ".server")
				chunk := len(fromClient)
				if policy == "manual" {
					chunk = 7
				}
				replay(t, policy, chunk, fromClient, fromServer)
			})
		}
	}
}

// cutBehind splits bytes behind a mark.
func cutBehind(t *testing.T, b []byte, mark string) (before, after []byte) {
	t.Helper()
	i := bytes.Index(b, []byte(mark))
	if i < 0 {
		t.Fatalf("no %s", mark)
	}
	return b[:i+len(mark)], b[i+len(mark):]
}

// cutHeader splits a stream behind its header.
func cutHeader(t *testing.T, b []byte) (before, after []byte) {
	t.Helper()
	i := bytes.Index(b, []byte("<stream:stream"))
	j := bytes.IndexByte(b[max(i, 0):], '>')
	if i < 0 || j < 0 {
		t.Fatal("no header")
	}
	return b[:i+j+1], b[i+j+1:]
}

const streamClose = "</stream:stream>"

func replay(t *testing.T, policy string, chunk int, fromClient, fromServer []byte) {
	clientHeader, clientRest := cutHeader(t, fromClient)
	serverFeatures, serverRest := cutBehind(t, fromServer, "</stream:features>")
	clientRest, serverRest = bytes.TrimSuffix(clientRest, []byte(streamClose)), bytes.TrimSuffix(serverRest, []byte(streamClose))
	atServer := make(chan []byte, 1)
	s := startServer(t, server.Config{Domain: "one.test", Users: map[string]string{"alice": "secret"}, Script: func(conn net.Conn) {
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		conn.Write(serverFeatures)
		got := readUntil(conn, func(b []byte) bool {
			i := bytes.IndexByte(b, '>') // of the XML declaration
			return bytes.HasSuffix(b, clientRest[max(0, len(clientRest)-60):]) && bytes.Count(b[max(i, 0):], []byte("<")) > 2 && len(b) >= len(clientRest)
		})
		atServer <- got
		conn.Write(serverRest)
		io.Copy(io.Discard, conn)
	}})
	dir := stateDir(t)
	greet(t, dir, "alice@one.test")
	b := startConfigured(t, dir, strings.ReplaceAll("listen: [\"127.0.0.1:0\"]\nstate: STATE\ndomains:\n  one.test: {connect: \""+s.Addr()+"\", trust: pin, pins: [\""+s.Pin()+"\"]}\notr: [{policy: "+policy+"}]\n",
		"STATE", dir))

	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	until := func(mark string) []byte {
		t.Helper()
		got := readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte(mark)) })
		if !bytes.Contains(got, []byte(mark)) {
			t.Fatalf("no %s in %s", mark, got)
		}
		return got
	}
	io.WriteString(conn, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='one.test' version='1.0'>")
	until("</stream:features>")
	io.WriteString(conn, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+base64.StdEncoding.EncodeToString([]byte("\x00alice\x00secret"))+"</auth>")
	until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	conn.Write(clientHeader)
	_, early := cutBehind(t, until("</stream:features>"), "</stream:features>")
	for rest := clientRest; len(rest) > 0; {
		n := min(chunk, len(rest))
		if _, err := conn.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	_, got := cutHeader(t, <-atServer)
	same(t, "the server", got, clientRest)
	want := serverRest
	if policy != "never" { // the one thing that is added: the proxy, among the server's services
		want = services.ReplaceAll(want, []byte("$1<item xmlns='http://jabber.org/protocol/disco#items' jid='otrproxy.localhost' name='otrproxy'/>$2"))
	}
	got = append(early, readUntil(conn, func(b []byte) bool { return len(early)+len(b) >= len(want) })...)
	same(t, "the client", got, want)
	io.WriteString(conn, streamClose)
	if end, _ := io.ReadAll(conn); string(end) != streamClose {
		t.Errorf("the stream ended with %s", end)
	}
}

// speaks reports whether presence tells of its sender in words.
func speaks(st *stanza.Stanza) bool {
	return st.Is(stanza.NSClient, "presence") && telling.Match(st.Raw)
}

var telling = regexp.MustCompile(`<(status|nick)[ >]`)

var services = regexp.MustCompile(`(from='one\.test'[^>]*><query xmlns='http://jabber\.org/protocol/disco#items'>(?:<item [^>]*/>)+)(</query>)`)

// readUntil reads until what was read satisfies a condition, or there is no more.
func readUntil(conn net.Conn, enough func([]byte) bool) (got []byte) {
	var b [4096]byte
	for !enough(got) {
		n, err := conn.Read(b[:])
		got = append(got, b[:n]...)
		if err != nil {
			break
		}
	}
	return got
}

func same(t *testing.T, who string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s got %d bytes of %d; they differ at %d:\n got %.300q\nwant %.300q", who, len(got), len(want), i, got[max(0, i-40):], want[max(0, i-40):])
}

// Under require, what eight clients send in their normal life besides texts passes as
// well: their presence and what they ask of the server, their own account and others'
// programs.
func TestRecordedStreamsUnderRequire(t *testing.T) {
	files, _ := filepath.Glob("testdata/streams/*.client")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".client")
		t.Run(name, func(t *testing.T) {
			b, _ := os.ReadFile(file)
			header, rest := cutHeader(t, b)
			s := startServer(t, server.Config{Domain: domain})
			p := startProxy(t, s, "")
			alice := p.login("alice", client.Plain)
			// The recordings are of another account; what matters are their forms.
			whole := append(append(bytes.Clone(header), bytes.TrimSuffix(rest, []byte(streamClose))...), streamClose...)
			whole = bytes.ReplaceAll(whole, []byte("one.test"), []byte(domain))
			scan := stanza.NewScanner(bytes.NewReader(whole), stanza.Limits{})
			scan.Next()
			passed := 0
			for {
				st, err := scan.Next()
				if err != nil || st.Kind == stanza.KindClose {
					break
				}
				if st.Kind != stanza.KindElement || string(st.Root().NS()) != stanza.NSClient || string(st.Root().Local()) == "message" {
					continue
				}
				if _, ok := st.Root().Child(stanza.NSBind, "bind"); ok {
					continue
				}
				before := len(s.Received())
				alice.Send(string(st.Raw))
				alice.Send("<iq type='get' id='after'><ping xmlns='urn:xmpp:ping'/></iq>")
				if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "after" }); err != nil {
					t.Fatal(err)
				}
				passed++
				sent, root := s.Received()[before:], st.Root()
				if bytes.Contains(sent, st.Raw) || bytes.Contains(st.Raw, []byte("jabber:iq:roster")) {
					continue
				}
				passed--
				// An error leaves without the text and the request it quotes; a room's settings are
				// up to a rule.
				if root.Attr("type") == "error" && bytes.Contains(sent, []byte("type='error'><error type='cancel'>")) || bytes.Contains(st.Raw, []byte("muc#roomconfig")) {
					continue
				}
				// What one address alone is told, or a room that has not let the client in, leaves
				// without words.
				if root.Attr("to") != "" && speaks(st) && bytes.Contains(sent, []byte("<presence to='"+root.Attr("to")+"'")) && !telling.Match(sent) {
					continue
				}
				t.Errorf("%s\nbecame %s", st.Raw, bytes.Split(sent, []byte("<iq type='get' id='after'>"))[0])
			}
			if passed < 20 {
				t.Errorf("only %d passed", passed)
			}
		})
	}
}
