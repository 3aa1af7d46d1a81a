package config

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"firefox", "firefox", 0}, {"fierfox", "firefox", 1}, {"firefx", "firefox", 1}, {"fireffox", "firefox", 1},
		{"firefix", "firefox", 1}, {"frefix", "firefox", 2}, {"chromium", "firefox", 7}, {"", "ab", 2}, {"abcd", "a", 3}, {"ba", "ab", 1},
	} {
		if d := Distance(c.a, c.b); d != c.want {
			t.Errorf("%s, %s: %d, not %d", c.a, c.b, d, c.want)
		}
		if d := Distance(c.b, c.a); d != c.want {
			t.Errorf("%s, %s: %d, not %d", c.b, c.a, d, c.want)
		}
	}
}
