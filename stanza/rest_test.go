package stanza

import (
	"io"
	"strings"
	"testing"
)

// A stream that has nothing to say holds no buffer, whatever it has said, and goes on after.
func TestRestingStreamHoldsNothing(t *testing.T) {
	said := []string{
		"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
		"<iq type='result'><query xmlns='jabber:iq:roster'>" + strings.Repeat("<item jid='c@x' a='1' b='2'/>", 5000) + "</query></iq>",
		"<message to='bob@x'><body>hello</body></message>",
	}
	r, w := io.Pipe()
	go func() {
		for _, s := range said {
			io.WriteString(w, s)
		}
		w.Close()
	}()
	s := NewScanner(r, Limits{Bytes: 1 << 20, Elements: 1 << 14})
	for i := range said {
		st, err := s.Next()
		if err != nil {
			t.Fatal(i, err)
		}
		if i > 0 && string(st.Raw) != said[i] {
			t.Fatalf("%d: %.80q", i, st.Raw)
		}
		if !s.Empty() {
			t.Fatalf("%d bytes are left", len(s.Buffered()))
		}
		s.Rest()
		if cap(s.buf)+cap(s.st.nodes)+cap(s.st.attrs)+cap(s.st.arena) > 0 {
			t.Errorf("after %d: %d bytes, %d elements, %d attributes", i, cap(s.buf), cap(s.st.nodes), cap(s.st.attrs))
		}
	}
	if _, err := s.Next(); err != io.ErrUnexpectedEOF && err != io.EOF {
		t.Error(err)
	}
}
