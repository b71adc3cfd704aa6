//go:build !unix

package leg

// A rawReader reads through the connection: waiting without memory is not to be had here.
type rawReader struct{ waits bool }

func (*rawReader) open(*Wire) {}

func (*rawReader) read(w *Wire) error {
	n, err := w.Conn.Read(w.take())
	w.w += n
	return err
}
