package leg

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A connection on which nothing comes holds no memory, and what comes is not lost for that.
func TestWaitingWireHoldsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	w := NewWire(here)
	if !w.raw.waits {
		return // the system cannot
	}
	for range 3 {
		here.SetReadDeadline(time.Now())
		w.await()
		if w.chunk != nil {
			t.Error("it holds a chunk for nothing")
		}
		if _, err := w.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		here.SetReadDeadline(time.Time{})
		there.Write([]byte("hello"))
		w.await()
		if w.chunk == nil || !w.ready() {
			t.Fatal("what has come is not there")
		}
		b := make([]byte, 10)
		if n, err := w.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Fatal(string(b[:n]), err)
		}
		if w.chunk != nil {
			t.Error("it holds a chunk of which all was read")
		}
	}
}

// An inlet tells that a read has to wait only where it has to: TLS gets whole records.
func TestReadyMeansAWholeRecord(t *testing.T) {
	record := append([]byte{0x17, 3, 3, 0, 20}, make([]byte, 20)...)
	for have := range len(record) + 1 {
		w := &Wire{Records: true, chunk: chunks.Get().(*[chunkSize]byte)[:]}
		w.w = copy(w.chunk, record[:have])
		if got, want := w.ready(), have == len(record); got != want {
			t.Errorf("with %d of %d bytes ready is %v", have, len(record), got)
		}
	}
	w := &Wire{Records: true, chunk: make([]byte, chunkSize), w: chunkSize} // no record is as large as this one says
	w.chunk[3], w.chunk[4] = 0xff, 0xff
	if !w.ready() {
		t.Error("a chunk that is full is waited for")
	}
}

// What is put back is read again, before what came behind it.
func TestUnreadComesFirst(t *testing.T) {
	for _, took := range []int{1, 5, 11} {
		ours, theirs := net.Pipe()
		go func() { theirs.Write([]byte("hello world")); theirs.Close() }()
		w := NewWire(ours)
		first := make([]byte, took)
		if _, err := io.ReadFull(w, first); err != nil {
			t.Fatal(err)
		}
		w.Unread(first[1:])
		w.Unread(first[:1])
		if got, err := io.ReadAll(w); err != nil || string(got) != "hello world" {
			t.Errorf("%d bytes put back: %q, %v", took, got, err)
		}
		if w.chunk != nil {
			t.Error("it holds a chunk with nothing in it")
		}
		ours.Close()
	}
}
