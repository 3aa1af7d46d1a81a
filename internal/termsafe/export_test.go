package termsafe

// Nothing are strings of which nothing passes.
var Nothing = nothing

// State is what a filter knows of the terminal, to be compared.
func (f *Filter) State() any { return [2]any{f.cursor, f.modes} }
