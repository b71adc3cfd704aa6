package otr

import (
	"bytes"
	"encoding/base64"
	"testing"
)

func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "QQ==", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=", "QUJD\nREVG\r\nR0hJ", "QUJDREVGR0hJ.SktM", "====", "QUJDREVGR0hJS=tMTU5PUFFSU1RVVldYWVo="} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
		wantN, wantErr := base64.StdEncoding.Decode(want, b)
		got := make([]byte, len(want))
		n, err := decodeBase64(got, b)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got[:n], want[:wantN]) {
			t.Errorf("decode %q: %q %v, want %q %v", b, got[:n], err, want[:wantN], wantErr)
		}
		text := make([]byte, base64.StdEncoding.EncodedLen(len(b)))
		if encodeBase64(text, b); string(text) != base64.StdEncoding.EncodeToString(b) {
			t.Errorf("encode %q: %q", b, text)
		}
	})
}
