package desktop

import "strings"

var markup = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// EscapeMarkup returns s so that Pango and the notification servers' markup show
// it as it is.
func EscapeMarkup(s string) string { return markup.Replace(s) }
