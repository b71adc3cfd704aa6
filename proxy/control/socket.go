package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// SocketName is the control socket's name in the state directory.
const SocketName = "control.sock"

const (
	maxRequest = 32 << 20 // profiles of other programs come with their files
	callLimit  = 60 * time.Second
)

type request struct {
	Command string            `json:"command"`
	Args    map[string]string `json:"args,omitempty"`
}

type response struct {
	Reply *Reply `json:"reply,omitempty"`
	Error string `json:"error,omitempty"`
	Usage bool   `json:"usage,omitempty"`
}

// ErrNotRunning tells that nobody answers at the control socket.
var ErrNotRunning = errors.New("no running otrproxy answers")

// Listen opens the control socket, for this user only. A socket that a dead
// process left behind is replaced.
func Listen(path string) (net.Listener, error) {
	if len(path) > 100 {
		return nil, fmt.Errorf("the path of the control socket is too long for this system (%d bytes): %s; give \"state\" a shorter path", len(path), path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := listenPrivately(path)
	if err != nil {
		return nil, fmt.Errorf("the control socket %s cannot be opened: %w", path, err)
	}
	return l, nil
}

// Serve answers the administrator's calls until the listener is closed.
func (t Table) Serve(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil { // out of file descriptors, say
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(callLimit))
			ctx, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			json.NewEncoder(conn).Encode(t.answer(ctx, conn))
		}()
	}
}

func (t Table) answer(ctx context.Context, conn net.Conn) response {
	var req request
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&req); err != nil {
		return response{Error: "not a request"}
	}
	reply, err := t.Run(ctx, Actor{Place: InShell}, req.Command, req.Args)
	if err != nil {
		return response{Error: err.Error(), Usage: errors.Is(err, ErrUsage)}
	}
	return response{Reply: &reply}
}

// usageError is a usage error that came over the socket, in the words it came in.
type usageError string

func (e usageError) Error() string        { return string(e) }
func (e usageError) Is(target error) bool { return target == ErrUsage }

// Ask has a running proxy run a command.
func Ask(path, command string, args map[string]string) (Reply, error) {
	conn, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		return Reply{}, fmt.Errorf("%w at %s; start it with \"otrproxy run\", or name its socket with --socket", ErrNotRunning, filepath.Clean(path))
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(callLimit + 5*time.Second))
	if err := json.NewEncoder(conn).Encode(request{command, args}); err != nil {
		return Reply{}, err
	}
	var res response
	if err := json.NewDecoder(conn).Decode(&res); err != nil {
		return Reply{}, fmt.Errorf("the running otrproxy gave no answer: %w", err)
	}
	switch {
	case res.Usage:
		return Reply{}, usageError(res.Error)
	case res.Error != "":
		return Reply{}, errors.New(res.Error)
	case res.Reply == nil:
		return Reply{}, errors.New("the running otrproxy gave an empty answer")
	}
	return *res.Reply, nil
}
