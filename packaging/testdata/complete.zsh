# complete.zsh SHELL PREFIX: types at an interactive bash or zsh that has Vix's
# completions from PREFIX/share, presses Tab, and prints what the shell shows.
# A line of standard input is what is typed, and the words that are waited for, with
# tabs between. It ends at the first line of which a word is not shown. However it
# ends, the shell ends with it.
zmodload zsh/zpty zsh/system
case $1 in
bash)
	keys=$'\t\t'
	zpty -b shell bash --norc --noprofile -i
	setup="PS1=; bind 'set enable-bracketed-paste off' 'set completion-query-items 0' 'set page-completions off'
XDG_DATA_DIRS=$2/share; . /usr/share/bash-completion/bash_completion"
	;;
zsh)
	keys=$'\t'
	zpty -b shell zsh -f -i
	setup="PS1=; unset zle_bracketed_paste; fpath=($2/share/zsh/*(N) \$fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=0
bindkey '^I' list-choices"
	;;
esac
terminal=$REPLY
trap 'zpty -d shell' EXIT
trap 'exit 1' HUP INT TERM

# shows WORD: reads into seen until WORD is there. That a word will not come has no
# event: a shell that says nothing for a while has said all.
shows() {
	local more
	while [[ $seen != *"$1"* ]]; do
		sysread -i $terminal -t 15 more || return
		seen+=$more
	done
}

zpty -w shell "stty columns 160 rows 60; $setup
echo rea''dy"
seen=
shows ready || { print -r -- "no prompt: $seen"; exit 1 }
while IFS=$'\t' read -rA words; do
	line=$words[1] seen= missing=
	zpty -w -n shell "$line$keys"
	for word in $words[2,-1]; do
		shows $word || { missing=$word; break }
	done
	print -r -- "$line => ${seen//[^[:print:][:space:]]/}"
	[[ -z $missing ]] || break
	zpty -w -n shell $'\C-u'
done
