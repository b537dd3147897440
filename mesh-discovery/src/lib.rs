//! Where services are: one watch interface over several sources
