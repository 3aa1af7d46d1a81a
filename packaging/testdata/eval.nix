# What flake.nix gives, evaluated with the little of nixpkgs that it uses: stubs that
# keep what they are given. Arguments: the checkout.
project:
let
  lib = {
    mkOption = x: x // { _type = "option"; };
    mkEnableOption = description: { _type = "option"; inherit description; default = false; };
    mkIf = condition: content: if condition then content else { };
    optionalAttrs = condition: x: if condition then x else { };
    literalExpression = x: x;
    types = { package = "package"; str = "str"; listOf = x: "list of ${x}"; };
    licenses.asl20 = "Apache-2.0";
    fakeHash = "fake";
    fileContents = path: builtins.head (builtins.split "\n" (builtins.readFile path));
    cleanSource = path: toString path;
    makeBinPath = builtins.concatStringsSep ":";
  };
  names = [ "autoPatchelfHook" "makeWrapper" "scdoc" "libxkbcommon" "mmdebstrap" "passt" "qemu" "virtiofsd" "go" "gnumake" "git" ];
  pkgs = builtins.listToAttrs (map (name: { inherit name; value = name; }) names) // {
    inherit lib;
    buildGoModule = x: x // { _type = "package"; outPath = "/nix/store/${x.pname}-${x.version}"; };
    mkShell = x: x;
    callPackage = path: extra:
      let f = import path; in f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // extra);
    formats.toml = _: { type = "toml"; generate = name: value: "${name}: ${builtins.toJSON value}"; };
    stdenv.hostPlatform.system = "x86_64-linux";
  };
  flake = (import (project + "/flake.nix")).outputs {
    self = flake;
    nixpkgs.legacyPackages.x86_64-linux = pkgs;
  };
  # A module with every option at its default, but for what is set.
  module = f: set:
    let
      m = f { inherit lib pkgs; config.programs.vix = builtins.mapAttrs (_: o: o.default) m.options.programs.vix // set; };
    in
    { options = builtins.attrNames m.options.programs.vix; inherit (m) config; };
  shown = p: builtins.removeAttrs p [ "outPath" ];
in
{
  package = shown flake.packages.x86_64-linux.default;
  overlay = (flake.overlays.default pkgs { }).vix.pname;
  shell = map (p: p.pname) flake.devShells.x86_64-linux.default.inputsFrom;
  off = (module flake.nixosModules.default { }).config;
  nixos = module flake.nixosModules.default { enable = true; kvmUsers = [ "alice" ]; };
  home = module flake.homeManagerModules.default {
    enable = true;
    settings.vm.web.memory = "2G";
    keep = [ "web" ];
  };
}
