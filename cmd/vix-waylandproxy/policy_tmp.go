package main

import "vix/internal/filter"

func limitNames() []string { return filter.LimitNames() }

func setLimit(l *filter.Limits, name string, n int64) error { return l.Set(name, n) }

func checkInterface(name string) error { return filter.CheckInterface(name) }
