package menu

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// What is packed comes back, and nothing that is cut does.
func TestPackItems(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawItems(t)
		for i := range list {
			list[i].Machine = i%3 == 0
			list[i].Keywords = rapid.SliceOfN(text, 1, 3).Draw(t, "keywords")
		}
		packed := string(PackItems(list))
		got, err := UnpackItems(packed)
		if err != nil || !reflect.DeepEqual(got, list) {
			t.Fatalf("%v: got %+v, want %+v", err, got, list)
		}
		if _, err := UnpackItems(packed[:rapid.IntRange(0, len(packed)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("items that are cut are taken for whole")
		}
		if _, err := UnpackItems(packed + "x"); err == nil {
			t.Fatal("what follows is not seen")
		}
	})
}

// Bytes from nowhere are an error, not a panic, and cost no more memory than they have.
func FuzzUnpackItems(f *testing.F) {
	f.Add(string(PackItems([]Item{{ID: "a", Name: "b", Keywords: []string{"c"}, Machine: true, Use: 2}, {}})))
	f.Fuzz(func(t *testing.T, packed string) {
		items, err := UnpackItems(packed)
		if err == nil && len(items) > len(packed) {
			t.Fatalf("%d items of %d bytes", len(items), len(packed))
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	list := make([]Item, 5000)
	for i := range list {
		list[i] = Item{ID: "bench0/p1234", Name: "Program 1234 of many", Generic: "Something", Keywords: []string{"one", "two", "three", "true"},
			Icon: "org.gtk.Demo4", VM: "bench0", Tag: "bench0", Color: "#1565c0"}
	}
	packed := string(PackItems(list))
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			PackItems(list)
		}
	})
	b.Run("unpack", func(b *testing.B) {
		for b.Loop() {
			if _, err := UnpackItems(packed); err != nil {
				b.Fatal(err)
			}
		}
	})
}
