{
  description = "Vix: every program in its own virtual machine, every window on your own desktop";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable"; # QEMU 11 or newer

  outputs =
    { self, nixpkgs }:
    let
      system = "x86_64-linux"; # the only kind of machine that Vix makes VMs of
      pkgs = nixpkgs.legacyPackages.${system};
      vix = pkgs.callPackage ./packaging/nix/package.nix { };
    in
    {
      packages.${system} = {
        inherit vix;
        default = vix;
      };
      overlays.default = final: _: { vix = final.callPackage ./packaging/nix/package.nix { }; };
      nixosModules.default = import ./packaging/nix/nixos.nix self;
      homeManagerModules.default = import ./packaging/nix/home-manager.nix self;
      devShells.${system}.default = pkgs.mkShell {
        inputsFrom = [ vix ];
        packages = [ pkgs.go pkgs.gnumake pkgs.git ];
      };
    };
}
