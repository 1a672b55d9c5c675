// Verifies what Posthorn sends; Go's standard library and nothing else.
//
// Run as a program it verifies one request, a JSON document on standard input:
// {"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func VerifyStandard(secret, id, timestamp, signatures string, body []byte, now int64) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) < 24 {
		return false
	}
	sent, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || sent < now-300 || sent > now+300 {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	// Several, separated by spaces, while a secret is being changed.
	for _, given := range strings.Split(signatures, " ") {
		if hmac.Equal([]byte(expected), []byte(given)) {
			return true
		}
	}
	return false
}

func VerifyHex(secret, signature string, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return secret != "" && hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(signature))
}

type request struct {
	Secret       string  `json:"secret"`
	ID           string  `json:"id"`
	Timestamp    string  `json:"timestamp"`
	Signature    *string `json:"signature"`
	Body         string  `json:"body"`
	Now          int64   `json:"now"`
	HexSignature *string `json:"hex_signature"`
}

func main() {
	standard, plain := "refused", "refused"
	input, err := io.ReadAll(os.Stdin)
	var r *request
	if err == nil && json.Unmarshal(input, &r) == nil && r != nil {
		body := []byte(r.Body)
		if r.Signature == nil {
			standard = "absent"
		} else if VerifyStandard(r.Secret, r.ID, r.Timestamp, *r.Signature, body, r.Now) {
			standard = "ok"
		}
		if r.HexSignature == nil {
			plain = "absent"
		} else if VerifyHex(r.Secret, *r.HexSignature, body) {
			plain = "ok"
		}
	}
	fmt.Printf("%s\n%s\n", standard, plain)
}
