"""The bundled model's recipe: emoji artwork → captions → autoencoder → text encoders → teacher."""
