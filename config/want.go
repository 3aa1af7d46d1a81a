package config

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Messages about a value of the wrong type: most are quotes or brackets too many or too few.

func wantText(x any) error {
	switch x.(type) {
	case int64, bool:
		return fmt.Errorf(`want text in quotes: "%v"`, x)
	}
	return fmt.Errorf("want text in quotes, not %s", describe(x))
}

func wantNumber(x any) error {
	switch x := x.(type) {
	case string:
		if n, err := strconv.Atoi(x); err == nil {
			return fmt.Errorf("want a number without quotes: %d", n)
		}
	case float64:
		return errors.New("want a whole number, without a decimal point")
	}
	return fmt.Errorf("want a whole number, not %s", describe(x))
}

func wantBool(x any) error {
	if _, ok := x.(string); ok {
		return fmt.Errorf("want true or false, without quotes, not %s", describe(x))
	}
	return fmt.Errorf("want true or false, not %s", describe(x))
}

func wantList(x any) error {
	if _, ok := x.(string); ok {
		return fmt.Errorf("want a list, in brackets: [%s]", describe(x))
	}
	return fmt.Errorf(`want a list of texts such as ["a", "b"], not %s`, describe(x))
}

// wantTable is for a table that is called name in the file.
func wantTable(name string, x any) error {
	if _, ok := x.([]map[string]any); ok {
		return fmt.Errorf("is in two pairs of brackets; want [%s]", name)
	}
	return fmt.Errorf("want the table [%s], not %s", name, describe(x))
}

// describe returns a decoded value as a message quotes it.
func describe(x any) string {
	switch x := x.(type) {
	case string:
		return strconv.Quote(clip(x))
	case int64, bool:
		return fmt.Sprint(x)
	case float64:
		return "a number with a decimal point"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	default:
		return "a list"
	}
}
