//go:build !unix

package proxy

// A rawReader reads through the connection: waiting without memory is not to be had here.
type rawReader struct{ waits bool }

func (*rawReader) open(*wire) {}

func (*rawReader) read(w *wire) error {
	n, err := w.Conn.Read(w.take())
	w.w += n
	return err
}
